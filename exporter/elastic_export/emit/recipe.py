"""Recipes: where each weight input of an emitted model comes from (`weights.json`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.emit.emit import EmittedModel
from elastic_export.graph.facts import full_runs
from elastic_runtime.errors import BuildError
from elastic_runtime.safetensors import TensorEntry
from elastic_runtime.weights import WeightDtype, WeightInput, WeightRecipe


def shared_recipe(model: EmittedModel, checkpoint: Checkpoint, locate: Callable[[Path], str]) -> WeightRecipe:
    """Weights as slices of the parent's shards; `locate` gives a shard's path relative to weights.json."""
    inputs = []
    for port, weight in zip(model.weights, model.weight_slices, strict=True):
        tensor = checkpoint.tensors[weight.tensor]
        dtype = cast(WeightDtype, tensor.dtype)
        inputs.append(
            WeightInput(port.name, locate(tensor.file), tensor.offset, dtype, tensor.shape, weight.shape, weight.runs)
        )
    return WeightRecipe(tuple(inputs))


def sliced_recipe(
    model: EmittedModel, entries: Mapping[str, tuple[str, TensorEntry]], renamed: Callable[[str], str]
) -> WeightRecipe:
    """Weights as whole tensors of a sub-model's own checkpoint.

    Args:
        model: the emitted model.
        entries: tensor name in the sliced checkpoint -> (file relative to weights.json, header entry).
        renamed: parent tensor name -> name in the sliced checkpoint.
    """
    inputs = []
    for port, weight in zip(model.weights, model.weight_slices, strict=True):
        file, entry = entries[renamed(weight.tensor)]
        if entry.shape != weight.shape:
            raise BuildError(f"sliced tensor {entry.name}", expected=f"{weight.shape}", found=f"{entry.shape}")
        dtype = cast(WeightDtype, entry.dtype)
        inputs.append(
            WeightInput(port.name, file, entry.offset, dtype, entry.shape, weight.shape, full_runs(entry.shape))
        )
    return WeightRecipe(tuple(inputs))
