"""Recipes: where each weight input of an emitted model comes from (`weights.json`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from elastic_export.checkpoint.reader import Checkpoint, TensorRef
from elastic_export.emit.emit import EmittedModel
from elastic_export.graph.facts import Form, TensorSlice, Weight
from elastic_export.layers.eight_bits import EightBitMatrix, EightBits
from elastic_export.runs import Runs, full_runs
from elastic_runtime.errors import InternalError
from elastic_runtime.format.interface import Precision, StoredDtype
from elastic_runtime.format.slicing import merge_runs
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


def quantised_recipe(
    model: EmittedModel, tensors: Mapping[str, TensorRef], eight_bits: EightBits, locate: Callable[[Path], str]
) -> WeightRecipe:
    """Weights as slices of a parent in eight bits; what is joined there is one stored tensor.

    Args:
        model: the emitted model.
        tensors: what `write_quantised` stored, by name.
        eight_bits: what is quantised.
        locate: gives a file's path relative to weights.json.
    """
    matrices = eight_bits.tensors

    def stored(weight: Weight) -> StoredSlice:
        first = weight.parts[0]
        if weight.form == Form.WHOLE:
            tensor, runs = tensors[first.tensor], first.runs
        else:
            matrix = matrices[first.tensor]
            rows, columns = _joined_rows(matrix, weight), first.runs[1]
            name = matrix.scales if weight.form == Form.SCALES else matrix.values
            tensor = tensors[name]
            layouts = {Form.EIGHT_BITS: (rows, columns), Form.EIGHT_BITS_TRANSPOSED: (columns, rows)}
            runs = layouts.get(weight.form, (rows,))
        dtype: StoredDtype = "int8" if tensor.dtype == "i8" else cast(Precision, tensor.dtype)
        return StoredSlice(locate(tensor.file), tensor.offset, dtype, tensor.shape, weight.shape, runs)

    found = ((name, stored(weight)) for name, weight in model.weight_sources.items())
    return WeightRecipe(tuple(WeightInput(name, (part,)) for name, part in found))


def _joined_rows(matrix: EightBitMatrix, weight: Weight) -> Runs:
    """The rows that a weight keeps, counted over all tensors of a matrix one after the other."""
    first, runs = 0, list[tuple[int, int]]()
    for (tensor, shape), part in zip(matrix.tensors, weight.parts, strict=True):
        if tensor != part.tensor:
            raise InternalError(f"weight {matrix.name}", expected=f"rows of {tensor}", found=f"of {part.tensor}")
        runs += [(first + start, count) for start, count in part.runs[0]]
        first += shape[0]
    return merge_runs(runs)


def _recipe(model: EmittedModel, stored: Callable[[TensorSlice], StoredSlice]) -> WeightRecipe:
    return WeightRecipe(
        tuple(
            WeightInput(name, tuple(stored(part) for part in weight.parts), weight.axis)
            for name, weight in model.weight_sources.items()
        )
    )
