"""What a format says of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """A stored tensor of a quantised matrix [N, K].

    Attributes:
        name: after the module's, `weight` or `weight_scale`.
        dtype: our name of it.
        every: how many neighbouring columns one element is for, so that it is [N, K / every]; None: it is one number
            for the whole matrix.
    """

    name: str
    dtype: str
    every: int | None

    def shape(self, matrix: Sequence[int]) -> tuple[int, ...]:
        """Its shape beside a matrix of that shape."""
        rows, columns = matrix
        return () if self.every is None else (rows, columns // self.every)


@dataclass(frozen=True)
class Fault:
    """An element that the format does not allow: the piece that has it, which of the rows, and what it is."""

    piece: Piece
    row: int
    expected: str
    found: str


@dataclass(frozen=True)
class Format:
    """How a matrix [N, K] is stored in other numbers than a model's.

    Attributes:
        name: as its makers call it.
        pieces: the tensors that it owns of a module, the matrix itself first. Elements of those that lie by rows are
            handed over as the bytes they are (one each), so that they are cut like any others.
        bound: no number of the matrix is larger, before it is multiplied by the numbers for the whole of it.
        decode: pieces by rows [n, k / every], numbers for the whole matrix -> float32 [n, k]. Where the numbers are
            allowed ones (`fault`), each result is the exact product, rounded once.
        fault: the first element that is not allowed among pieces by rows.
    """

    name: str
    pieces: tuple[Piece, ...]
    bound: float
    decode: Callable[[Sequence[Codes], Sequence[np.float32]], Array]
    fault: Callable[[Sequence[Codes]], Fault | None]

    @property
    def by_rows(self) -> tuple[Piece, ...]:
        """The pieces with a row for each of the matrix's."""
        return tuple(piece for piece in self.pieces if piece.every is not None)

    @property
    def whole(self) -> tuple[Piece, ...]:
        """The pieces that are one number."""
        return tuple(piece for piece in self.pieces if piece.every is None)

    @property
    def block(self) -> int:
        """Columns that only go together: a run of columns begins and ends at multiples of it."""
        return max(piece.every for piece in self.pieces if piece.every is not None)


def first_row(wrong: npt.NDArray[Any]) -> int:
    """The first row of [n, k] truths with a true one."""
    return int(np.flatnonzero(wrong.any(axis=1))[0])
