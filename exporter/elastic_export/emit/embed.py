"""Embedded weights: weight inputs become initializers, their data external to the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from elastic_export.graph.facts import WeightSlice

#: Gives the sliced array of a weight, in the dtype in which the file keeps it.
ReadWeight = Callable[[WeightSlice], npt.NDArray[Any]]


def embed_weights(model: ir.Model, weights: Sequence[WeightSlice], read: ReadWeight) -> None:
    """Turn the weight inputs of a graph into initializers, in place; each is read when the file is written."""
    graph, inputs = model.graph, {str(value.name): value for value in model.graph.inputs}
    for weight in weights:
        value = inputs[weight.tensor]
        assert value.dtype is not None
        graph.inputs.remove(value)
        value.const_value = ir.LazyTensor(
            lambda weight=weight: ir.tensor(read(weight), name=weight.tensor),  # type: ignore[misc]
            dtype=value.dtype,
            shape=ir.Shape(list(weight.shape)),
            name=weight.tensor,
        )
        graph.register_initializer(value)
