"""A model that a bundle's other files do not speak of is refused."""

from __future__ import annotations

from typing import Literal

import onnx
import pytest

from elastic_runtime.errors import InputError
from elastic_runtime.format.weights import StoredSlice, WeightInput, WeightRecipe
from elastic_runtime.ort.model_checks import check_logits, check_weights

PART = StoredSlice("shard", 8, "fp32", (10, 6), (6, 5), (((1, 6),), ((0, 5),)))


def _model(**inputs: tuple[int, list[int]]) -> onnx.ModelProto:
    given = [onnx.helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()]
    return onnx.helper.make_model(onnx.helper.make_graph([], "g", given, []))


_FLOAT, _INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
_TOKENS = {"input_ids": (_INT64, [1, 1]), "position": (_INT64, [1])}


def test_weights_that_the_model_asks_for_are_taken() -> None:
    items = (WeightInput("w", (PART,)), WeightInput("double", (PART, PART), 0))
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
    with pytest.raises(InputError) as caught:
        check_weights(_model(**_TOKENS, **inputs), WeightRecipe((WeightInput("w", (PART,)),)))
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
