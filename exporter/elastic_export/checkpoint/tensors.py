"""A tensor of the architecture as the shards hold it: at one place, or as the pieces of a quantised format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from elastic_export.checkpoint.formats.format import Array, Codes, Format
from elastic_export.runs import TensorRuns, positions
from elastic_runtime.errors import InputError, InternalError
from elastic_runtime.format.safetensors import itemsize
from elastic_runtime.format.slicing import copy_runs


class Place(NamedTuple):
    """Bytes of a file."""

    file: Path
    offset: int
    size: int


@dataclass(frozen=True)
class TensorRef:
    """Where a tensor lies: `offset` is the absolute byte in `file`."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    def rows(self, first: int, count: int) -> Place:
        """Where some of its rows lie."""
        row = self.nbytes // self.shape[0]
        return Place(self.file, self.offset + first * row, count * row)


@dataclass(frozen=True)
class QuantisedTensor:
    """A matrix [N, K] that is read by dequantising.

    Attributes:
        name: of the matrix, as an unquantised checkpoint has it.
        dtype: that of the model's other matrices, which it had before: what an export stores in its place.
        shape: (N, K).
        format: how it is stored.
        by_rows: where the format's pieces by rows lie.
        whole: its numbers for the whole matrix.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    format: Format
    by_rows: tuple[TensorRef, ...]
    whole: tuple[np.float32, ...]

    @property
    def nbytes(self) -> int:
        """Bytes in `dtype`."""
        return math.prod(self.shape) * itemsize(self.dtype)

    def rows(self, first: int, count: int) -> tuple[Place, ...]:
        """Where some rows of each piece lie."""
        return tuple(ref.rows(first, count) for ref in self.by_rows)

    def pieces(self, data: Sequence[Any], count: int) -> list[Codes]:
        """The bytes of `count` rows of each piece as arrays."""
        return [np.ndarray((count, ref.shape[1]), np.uint8, each) for ref, each in zip(self.by_rows, data, strict=True)]

    def cut(self, pieces: Sequence[Codes], runs: TensorRuns, first: int = 0) -> Array:
        """The kept elements, float32.

        Args:
            pieces: some rows of each.
            runs: which of these rows, and which columns: whole blocks of the format.
            first: the matrix's row that is the first of them.

        Raises:
            InputError: see `decode`.
        """
        rows, columns = runs
        kept = []
        for piece, codes in zip(self.format.by_rows, pieces, strict=True):
            assert piece.every is not None
            if any(start % piece.every or count % piece.every for start, count in columns):
                expected = f"columns in whole blocks of {self.format.block}"
                raise InternalError(f"a slice of {self.name}", expected=expected, found=f"the runs {columns}")
            every = tuple((start // piece.every, count // piece.every) for start, count in columns)
            kept.append(copy_runs(codes, (rows, every)))
        return self.decode(kept, first + positions(rows))

    def decode(self, pieces: Sequence[Codes], rows: Sequence[int] | npt.NDArray[np.int64]) -> Array:
        """Rows of the pieces -> float32, exact but for one rounding.

        Args:
            pieces: some rows of each, all of the columns or some whole blocks of them.
            rows: which of the matrix's these are.

        Raises:
            InputError: an element that the format does not allow, with its tensor and row.
        """
        if (fault := self.format.fault(pieces)) is not None:
            ref = self.by_rows[self.format.by_rows.index(fault.piece)]
            raise InputError(
                f"{ref.file}, tensor {ref.name!r}, row {int(rows[fault.row])}",
                expected=fault.expected,
                found=fault.found,
                todo="download the checkpoint again, or quantise it again",
            )
        return self.format.decode(pieces, self.whole)


StoredTensor = TensorRef | QuantisedTensor
