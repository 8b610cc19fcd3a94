"""Recipes: what consumers load by `weights.json` is what the graph's inputs mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.checkpoint.reader import Checkpoint, TensorRef
from elastic_export.checkpoint.sliced import write_sliced
from elastic_export.checkpoint.synthetic import write_checkpoint
from elastic_export.emit import shared_recipe, sliced_recipe
from elastic_export.layers.kept import slice_array, tensor_runs
from elastic_runtime.errors import BuildError
from elastic_runtime.weights import WeightRecipe, load_weight


def test_shared_recipe_binds_slices_of_the_parents_shards(emitted: Any, compiled: Any, tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path / "parent", compiled.arch, compiled.weights, [compiled.budget], dtype="fp32", shards=2
    )
    recipe = shared_recipe(emitted, Checkpoint.open(folder), lambda path: f"parent/{path.name}")
    (tmp_path / "weights.json").write_text(recipe.to_json())
    read = WeightRecipe.read(tmp_path / "weights.json")
    runs = tensor_runs(compiled.arch, compiled.budget)
    assert [item.name for item in read.inputs] == [port.name for port in emitted.weights]
    assert len({part.file for item in read.inputs for part in item.parts}) == 2
    for item, port in zip(read.inputs, emitted.weights, strict=True):
        data = load_weight(item, tmp_path)
        assert data.shape == port.shape
        np.testing.assert_array_equal(data, slice_array(compiled.weights[item.name], runs[item.name]))


def test_sliced_recipe_binds_whole_tensors_of_the_sub_model(emitted: Any, compiled: Any, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "parent", compiled.arch, compiled.weights, [compiled.budget], dtype="fp32")
    tensors = write_sliced(Checkpoint.open(folder), compiled.budget, tmp_path / "small")
    recipe = sliced_recipe(emitted, tensors)
    assert [item.name for item in recipe.inputs] == [port.name for port in emitted.weights]
    runs = tensor_runs(compiled.arch, compiled.budget)
    for item, port in zip(recipe.inputs, emitted.weights, strict=True):
        assert item.parts[0].parent_shape == item.shape == port.shape
        data = load_weight(item, tmp_path / "small")
        np.testing.assert_array_equal(data, slice_array(compiled.weights[item.name], runs[item.name]))


def test_a_tensor_of_another_shape_is_an_error(emitted: Any) -> None:
    wrong = {
        weight.tensor: TensorRef(weight.tensor, Path("m.safetensors"), "fp32", (*weight.shape[:-1], 3), 0, 0)
        for weight in emitted.weight_slices
    }
    with pytest.raises(BuildError, match=r"sliced tensor backbone\.embeddings\.weight: expected \(61, 20\), found"):
        sliced_recipe(emitted, wrong)
