"""Rows of a weight, wherever it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from elastic_runtime.format.safetensors import itemsize
from elastic_runtime.format.weights import StoredSlice, WeightInput, WeightRecipe
from elastic_runtime.ort.weight_source import Held, OutsideTensors, Recipe, WeightSource

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


def test_rows_of_several_parts(tmp_path: Path) -> None:
    found = recipe(tmp_path).rows("double", 4, 4)
    np.testing.assert_array_equal(found, np.concatenate([KEPT, KEPT])[4:8])
