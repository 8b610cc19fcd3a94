"""Slices of tensors held in memory, as `emit.embed` asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from elastic_export.graph.facts import TensorSlice
from elastic_export.layers.kept import slice_array


def slices_of(tensors: Mapping[str, Any]) -> Callable[[TensorSlice], Any]:
    """Reads slices of `tensors`, by their names in the parent."""
    return lambda part: slice_array(tensors[part.tensor], part.runs)
