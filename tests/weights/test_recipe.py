"""Recipes: what consumers load by `weights.json` is what the graph's inputs mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.checkpoint.reader import Checkpoint, TensorRef
from elastic_export.emit import EmittedModel
from elastic_export.graph.facts import Weight, tensor_slices
from elastic_export.layers.kept import slice_array, tensor_runs
from elastic_export.weights.recipe import shared_recipe, sliced_recipe
from elastic_export.weights.sliced import write_sliced
from elastic_runtime.errors import BuildError, InputError, InternalError
from elastic_runtime.format.weights import WeightRecipe, load_weight
from synthetic import write_checkpoint


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
        part.tensor: TensorRef(part.tensor, Path("m.safetensors"), "fp32", (*part.shape[:-1], 3), 0, 0)
        for part in tensor_slices(emitted.weight_sources.values())
    }
    with pytest.raises(InternalError, match=r"sliced tensor backbone\.embeddings\.weight: expected \(61, 20\), found"):
        sliced_recipe(emitted, wrong)


KEYS, VALUES = (f"backbone.layers.1.mixer.{kind}_proj.weight" for kind in "kv")


def merged(emitted: EmittedModel) -> EmittedModel:
    """The model as a pass would leave it that lays keys and values in one matrix."""
    sources = dict(emitted.weight_sources)
    parts = (*sources.pop(KEYS).parts, *sources.pop(VALUES).parts)
    return replace(emitted, weight_sources={**sources, "keys_values": Weight(parts)})


def test_a_merged_weight_loads_as_its_tensors_behind_each_other(emitted: Any, compiled: Any, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "parent", compiled.arch, compiled.weights, [compiled.budget], dtype="fp32")
    checkpoint = Checkpoint.open(folder)
    tensors = write_sliced(checkpoint, compiled.budget, tmp_path / "parent" / "small")
    runs = tensor_runs(compiled.arch, compiled.budget)
    wanted = np.concatenate([slice_array(compiled.weights[name], runs[name]) for name in (KEYS, VALUES)])
    shared = shared_recipe(merged(emitted), checkpoint, lambda path: path.name)
    sliced = sliced_recipe(merged(emitted), tensors)
    for recipe, place in ((shared, folder), (sliced, tmp_path / "parent" / "small")):
        [item] = [item for item in recipe.inputs if item.name == "keys_values"]
        assert item.shape == wanted.shape
        np.testing.assert_array_equal(load_weight(item, place), wanted)
        with pytest.raises(
            BuildError, match=r"^weights\.json: keys_values: expected one stored tensor, .* found 2 laid"
        ):
            recipe.to_json()


def test_tensors_of_two_dtypes_make_no_weight(emitted: Any, compiled: Any, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "parent", compiled.arch, compiled.weights, [compiled.budget], dtype="fp32")
    checkpoint = Checkpoint.open(folder)
    narrow = checkpoint.tensors | {VALUES: replace(checkpoint.tensors[VALUES], dtype="bf16")}
    with pytest.raises(InputError, match=r"^weight keys_values: expected parts of one dtype, found fp32 and bf16\.$"):
        shared_recipe(merged(emitted), replace(checkpoint, tensors=narrow), lambda path: path.name)
