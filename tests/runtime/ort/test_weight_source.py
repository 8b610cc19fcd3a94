"""Rows of a weight, wherever it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest

from elastic_runtime.errors import InputError
from elastic_runtime.format.safetensors import itemsize
from elastic_runtime.format.weights import StoredSlice, WeightInput, WeightRecipe
from elastic_runtime.ort.weight_source import Held, OutsideTensors, Recipe, WeightSource, check_logits, check_weights

WHOLE = np.arange(60, dtype=np.float32).reshape(10, 6)
ROWS, COLUMNS = ((1, 2), (4, 1), (6, 3)), ((0, 2), (3, 3))
KEPT = WHOLE[[1, 2, 4, 6, 7, 8]][:, [0, 1, 3, 4, 5]]


def recipe(folder: Path) -> Recipe:
    (folder / "shard").write_bytes(bytes(8) + WHOLE.tobytes())
    part = StoredSlice("shard", 8, "fp32", (10, 6), (6, 5), (ROWS, COLUMNS))
    double = WeightInput("double", (part, part), 0)
    assert itemsize("fp32") == WHOLE.itemsize
    return Recipe(WeightRecipe((WeightInput("w", (part,)), double)), folder)


def outside(folder: Path) -> OutsideTensors:
    (folder / "model.onnx.data").write_bytes(bytes(12) + KEPT.tobytes())
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=KEPT.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "model.onnx.data", "offset": "12", "length": str(KEPT.nbytes)}.items():
        tensor.external_data.add(key=key, value=value)
    small = onnx.numpy_helper.from_array(KEPT[:1], "inside")
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[tensor, small])
    (folder / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return OutsideTensors(folder / "model.onnx")


@pytest.mark.parametrize("make", [recipe, outside, lambda _: Held([("w", KEPT)])], ids=["recipe", "outside", "held"])
def test_some_rows_are_those_of_the_whole(tmp_path: Path, make: Any) -> None:
    source: WeightSource = make(tmp_path)
    np.testing.assert_array_equal(source.load("w"), KEPT)
    for first in range(6):
        for count in range(1, 7 - first):
            np.testing.assert_array_equal(source.rows("w", first, count), KEPT[first : first + count])
    assert source.names >= {"w"}
    assert "inside" not in source.names


def _model(**inputs: tuple[int, list[int]]) -> onnx.ModelProto:
    given = [onnx.helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()]
    return onnx.helper.make_model(onnx.helper.make_graph([], "g", given, []))


_FLOAT, _INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
_TOKENS = {"input_ids": (_INT64, [1, 1]), "position": (_INT64, [1])}


def test_weights_that_the_model_asks_for_are_taken(tmp_path: Path) -> None:
    part = StoredSlice("shard", 8, "fp32", (10, 6), (6, 5), (ROWS, COLUMNS))
    items = (WeightInput("w", (part,)), WeightInput("double", (part, part), 0))
    check_weights(_model(**_TOKENS, double=(_FLOAT, [12, 5]), w=(_FLOAT, [6, 5])), WeightRecipe(items))
    check_weights(_model(**_TOKENS), WeightRecipe(()))


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({}, "weight w: expected an input of the model, found none of that name"),
        ({"w": (_FLOAT, [5, 6])}, "weight w: expected the model's shape and dtype, found others in weights.json"),
        ({"w": (_FLOAT, [30])}, "weight w: expected the model's shape and dtype, found others in weights.json"),
        ({"w": (_INT64, [6, 5])}, "weight w: expected the model's shape and dtype, found others in weights.json"),
        (
            {"w": (_FLOAT, [6, 5]), "v": (_FLOAT, [1])},
            "model input v: expected a weight of weights.json, found none of that name",
        ),
    ],
)
def test_weights_of_another_model_are_named(inputs: dict[str, tuple[int, list[int]]], told: str) -> None:
    part = StoredSlice("shard", 8, "fp32", (10, 6), (6, 5), (ROWS, COLUMNS))
    with pytest.raises(InputError) as caught:
        check_weights(_model(**_TOKENS, **inputs), WeightRecipe((WeightInput("w", (part,)),)))
    assert str(caught.value) == f"{told}. Export the bundle again."


@pytest.mark.parametrize(
    ("dims", "logits", "told"),
    [
        (["B", 9], "last", "expected [B, 8] as in manifest.json, found [B, 9]"),
        (["B", 8], "all", "expected [B, T, 8] as in manifest.json, found [B, 8]"),
        (["B", "T", 8], "last", "expected [B, 8] as in manifest.json, found [B, T, 8]"),
        (None, "last", "expected [B, 8] as in manifest.json, found []"),
    ],
)
def test_logits_that_the_manifest_does_not_say_are_refused(
    dims: list[str | int] | None, logits: Literal["last", "all"], told: str
) -> None:
    outputs = [] if dims is None else [onnx.helper.make_tensor_value_info("logits", _FLOAT, dims)]
    with pytest.raises(InputError) as caught:
        check_logits(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], outputs)), 8, logits)
    assert str(caught.value) == f"model output logits: {told}. Export the bundle again."


def test_logits_that_the_manifest_says_are_taken() -> None:
    for dims, logits in ((["B", 8], "last"), (["N", "T", 8], "all")):
        output = onnx.helper.make_tensor_value_info("logits", _FLOAT, dims)
        check_logits(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [output])), 8, logits)


def test_rows_of_several_parts(tmp_path: Path) -> None:
    found = recipe(tmp_path).rows("double", 4, 4)
    np.testing.assert_array_equal(found, np.concatenate([KEPT, KEPT])[4:8])
