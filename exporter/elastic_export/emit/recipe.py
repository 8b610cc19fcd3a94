"""Recipes: where each weight input of an emitted model comes from (`weights.json`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from elastic_export.checkpoint.reader import Checkpoint, TensorRef
from elastic_export.emit.emit import EmittedModel
from elastic_export.runs import full_runs
from elastic_runtime.errors import BuildError
from elastic_runtime.weights import StoredSlice, WeightDtype, WeightInput, WeightRecipe


def shared_recipe(model: EmittedModel, checkpoint: Checkpoint, locate: Callable[[Path], str]) -> WeightRecipe:
    """Weights as slices of the parent's shards; `locate` gives a shard's path relative to weights.json."""
    inputs = []
    for port, weight in zip(model.weights, model.weight_slices, strict=True):
        tensor = checkpoint.tensors[weight.tensor]
        dtype = cast(WeightDtype, tensor.dtype)
        part = StoredSlice(locate(tensor.file), tensor.offset, dtype, tensor.shape, weight.shape, weight.runs)
        inputs.append(WeightInput(port.name, (part,)))
    return WeightRecipe(tuple(inputs))


def sliced_recipe(model: EmittedModel, tensors: Mapping[str, TensorRef]) -> WeightRecipe:
    """Weights as whole tensors of a sub-model's own checkpoint, which lies beside weights.json.

    Args:
        model: the emitted model.
        tensors: the *parent's* tensor name -> the tensor in the sub-model's files.
    """
    inputs = []
    for port, weight in zip(model.weights, model.weight_slices, strict=True):
        tensor = tensors[weight.tensor]
        if tensor.shape != weight.shape:
            raise BuildError(f"sliced tensor {tensor.name}", expected=f"{weight.shape}", found=f"{tensor.shape}")
        dtype, runs = cast(WeightDtype, tensor.dtype), full_runs(tensor.shape)
        part = StoredSlice(tensor.file.name, tensor.offset, dtype, tensor.shape, weight.shape, runs)
        inputs.append(WeightInput(port.name, (part,)))
    return WeightRecipe(tuple(inputs))
