"""Recipes: where each weight input of an emitted model comes from (`weights.json`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from elastic_export.checkpoint.reader import Checkpoint, TensorRef
from elastic_export.emit.emit import EmittedModel
from elastic_export.graph.facts import TensorSlice
from elastic_export.runs import full_runs
from elastic_runtime.errors import InternalError
from elastic_runtime.format.interface import Precision
from elastic_runtime.format.weights import StoredSlice, WeightInput, WeightRecipe


def shared_recipe(model: EmittedModel, checkpoint: Checkpoint, locate: Callable[[Path], str]) -> WeightRecipe:
    """Weights as slices of the parent's shards; `locate` gives a shard's path relative to weights.json."""

    def stored(part: TensorSlice) -> StoredSlice:
        tensor = checkpoint.tensors[part.tensor]
        assert isinstance(tensor, TensorRef), "the plan has refused to share quantised shards"
        dtype = cast(Precision, tensor.dtype)
        return StoredSlice(locate(tensor.file), tensor.offset, dtype, tensor.shape, part.shape, part.runs)

    return _recipe(model, stored)


def sliced_recipe(model: EmittedModel, tensors: Mapping[str, TensorRef]) -> WeightRecipe:
    """Weights as whole tensors of a sub-model's own checkpoint, which lies beside weights.json.

    Args:
        model: the emitted model.
        tensors: the *parent's* tensor name -> the tensor in the sub-model's files.
    """

    def stored(part: TensorSlice) -> StoredSlice:
        tensor = tensors[part.tensor]
        if tensor.shape != part.shape:
            raise InternalError(f"sliced tensor {tensor.name}", expected=f"{part.shape}", found=f"{tensor.shape}")
        dtype, runs = cast(Precision, tensor.dtype), full_runs(tensor.shape)
        return StoredSlice(tensor.file.name, tensor.offset, dtype, tensor.shape, part.shape, runs)

    return _recipe(model, stored)


def _recipe(model: EmittedModel, stored: Callable[[TensorSlice], StoredSlice]) -> WeightRecipe:
    return WeightRecipe(
        tuple(
            WeightInput(name, tuple(stored(part) for part in weight.parts), weight.axis)
            for name, weight in model.weight_sources.items()
        )
    )
