"""The weights of a bundle in eight bits under the parent's names, as what their values mean."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from elastic_export.layers.architecture import Architecture, Stored
from elastic_export.layers.axis import shape_of
from elastic_export.layers.eight_bits import joined_name
from elastic_export.layers.kind import EMBEDDINGS
from elastic_runtime.errors import InputError
from elastic_runtime.ort.weight_source import Array, WeightSource

VALUES, SCALES = ".int8", ".scale"


class Dequantised:
    """A `WeightSource` of the parent's tensors over one of int8 values and scales; matrices come in float32.

    Args:
        weights: by the names of weights.json, version 2.
        arch: of the sub-model.
        tensors: its tensors under the parent's names, in the order of a checkpoint.

    Raises:
        InputError: values of another size than the architecture's, or without scales.
    """

    def __init__(self, weights: WeightSource, arch: Architecture, tensors: Iterable[Stored]) -> None:
        self._weights, rows = weights, dict[str, int]()
        self._places: dict[str, tuple[str, int, tuple[int, ...], int]] = {}
        for stored in tensors:
            matrix = joined_name(stored)
            if matrix + VALUES in weights.names:
                shape = shape_of(stored.tensor.axes, arch, stored.layer.ordinal if stored.layer else 0)
                axis = 0 if stored.tensor is EMBEDDINGS else 1
                self._places[stored.name] = matrix, rows.get(matrix, 0), shape, axis
                rows[matrix] = rows.get(matrix, 0) + shape[0]
        for matrix, _, (_, columns), axis in self._places.values():
            wanted = (rows[matrix], columns) if axis == 0 else (columns, rows[matrix])
            found = weights.shape(matrix + VALUES)
            scales = weights.shape(matrix + SCALES) if matrix + SCALES in weights.names else None
            if found != wanted or scales != (rows[matrix],):
                expected = f"values {list(wanted)} and as many scales as rows"
                raise InputError(
                    matrix, expected=expected, found=f"{found} and {scales}", todo="export the bundle again"
                )

    @property
    def names(self) -> frozenset[str]:
        """See `WeightSource`."""
        stays = {name for name in self._weights.names if not name.endswith((VALUES, SCALES))}
        return frozenset(stays | self._places.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightSource`."""
        return self._places[name][2] if name in self._places else self._weights.shape(name)

    def load(self, name: str) -> Array:
        """See `WeightSource`."""
        return self.rows(name, 0, self.shape(name)[0]) if name in self._places else self._weights.load(name)

    def rows(self, name: str, first: int, count: int, axis: int = 0) -> Array:
        """See `WeightSource`; of a matrix in eight bits rows alone."""
        if name not in self._places:
            return self._weights.rows(name, first, count, axis)
        assert axis == 0, name
        matrix, before, _, of_rows = self._places[name]
        values = self._weights.rows(matrix + VALUES, before + first, count, of_rows)
        scales = self._weights.rows(matrix + SCALES, before + first, count)
        by_rows = np.ascontiguousarray(values.T if of_rows else values)
        return by_rows.astype(np.float32) * (scales / np.float32(128))[:, None]
