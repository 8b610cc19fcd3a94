"""Embedded weights: weight inputs become initializers, their data external to the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from elastic_export.graph.facts import TensorSlice, Weight

#: Gives a slice of a tensor of the parent, in the dtype in which the file keeps it.
ReadSlice = Callable[[TensorSlice], npt.NDArray[Any]]


def embed_weights(model: ir.Model, weights: Mapping[str, Weight], read: ReadSlice) -> None:
    """Turn the weight inputs of a graph into initializers, in place; each is read when the file is written."""
    graph, inputs = model.graph, {str(value.name): value for value in model.graph.inputs}
    for name, weight in weights.items():
        value = inputs[name]
        assert value.dtype is not None
        graph.inputs.remove(value)
        value.const_value = ir.LazyTensor(
            lambda name=name, weight=weight: ir.tensor(read_weight(weight, read), name=name),  # type: ignore[misc]
            dtype=value.dtype,
            shape=ir.Shape(list(weight.shape)),
            name=name,
        )
        graph.register_initializer(value)


def read_weight(weight: Weight, read: ReadSlice) -> npt.NDArray[Any]:
    """The array of a weight: its parts, cut out of the parent's tensors, behind each other."""
    if len(weight.parts) == 1:
        return read(weight.parts[0])
    whole: npt.NDArray[Any] | None = None
    for part, window in zip(weight.parts, weight.windows, strict=True):
        array = read(part)
        whole = np.empty(weight.shape, array.dtype) if whole is None else whole
        window.view(whole)[...] = array
    assert whole is not None
    return whole
