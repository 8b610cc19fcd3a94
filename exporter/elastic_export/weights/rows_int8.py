"""A matrix in eight bits, a scale a row: how it is rounded, a band of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.layers.eight_bits import EightBitMatrix
from elastic_export.weights.row_losses import Losses, RowLosses
from elastic_runtime.errors import InputError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int8]

#: The largest int8 value; -128 is left out, so that both signs reach as far.
LARGEST: Final = 127
#: A scale is stored as what 128 is worth: products come by the value times 2^-7 (passes.quantise_linear).
STORED: Final = 128
_BAND = 64  # rows: what they become is copied into a transposed matrix in whole cache lines
_THREADS = 2  # one waits for the disk while the other rounds


def quantised(checkpoint: Checkpoint, matrix: EightBitMatrix, losses: Losses) -> tuple[Ints, Floats]:
    """A matrix as it is stored: int8 values of `matrix.shape`, float32 [N] scales times 128. What rounding took is
    counted in `losses`.

    Memory: the values, and a few bands of the parent.

    Raises:
        InputError: a value is not finite; the tensor is named.
    """
    values, scales = np.empty(matrix.shape, np.int8), np.empty(matrix.rows, np.float32)
    by_rows = values.T if matrix.transposed else values

    def take(first: int, rounded: Ints, found: Floats) -> None:
        by_rows[first : first + len(found)], scales[first : first + len(found)] = rounded, found

    _round(checkpoint, matrix, losses, take)
    return values, scales * np.float32(STORED)


def measure(checkpoint: Checkpoint, matrix: EightBitMatrix, losses: Losses) -> None:
    """Count in `losses` what `quantised` would take, of a matrix that has been stored before. Raises as that does."""
    _round(checkpoint, matrix, losses, lambda first, rounded, scales: None)


def _round(
    checkpoint: Checkpoint, matrix: EightBitMatrix, losses: Losses, take: Callable[[int, Ints, Floats], None]
) -> None:
    """Round a matrix band by band; `take` gets each, in any order, with the row of the matrix that it begins at."""

    def band(job: tuple[str, int, int, RowLosses | None]) -> None:
        name, at, first, lost = job
        rounded, scales = round_rows(checkpoint.read(name, slice(at, at + _BAND)), name, lost, at)
        take(first + at, rounded, scales)

    first = 0
    with ThreadPoolExecutor(_THREADS, "round") as pool:
        for name, shape in matrix.tensors:
            with losses.rows(name, shape) as lost:
                jobs = ((name, at, first, lost) for at in range(0, shape[0], _BAND))
                for number, _ in enumerate(pool.map(band, jobs)):
                    if number % 64 == 0:  # pages that were read are much memory by and by
                        checkpoint.release(name)
            checkpoint.release(name)
            first += shape[0]


def round_rows(rows: Array, name: str, lost: RowLosses | None = None, first: int = 0) -> tuple[Ints, Floats]:
    """Rows [n, K] as int8 [n, K] and their scales [n]: s = max|row| / 127, each value w as w / s to the nearest even.

    A row of zeros, or of values so small that their scale would lose digits in float32 (below 1.5e-36, nothing beside
    any other weight), becomes zeros with the scale 1. What that took is counted in `lost`, as of the rows from `first`
    on.

    Raises:
        InputError: a value is not finite, or so large that 128 of its row's scale would not be.
    """
    wide = np.array(rows, np.float32) if rows.dtype != "bfloat16" else _widened(rows)
    most = np.maximum(wide.max(axis=1), -wide.min(axis=1))
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(most / LARGEST * STORED)
    if bad.any():
        found = f"{most[bad][0]} in a row"
        raise no_number(name, "finite values, at most 3.37e38", found)
    scales = most / np.float32(LARGEST)
    scales[scales < np.finfo(np.float32).tiny] = 1.0
    wide /= scales[:, None]
    if lost is None:
        return np.rint(wide, out=wide).astype(np.int8), scales
    rounded = np.rint(wide)
    lost.put(first, wide, rounded, scales)
    return rounded.astype(np.int8), scales


def no_number(name: str, expected: str, found: str) -> InputError:
    """Of a tensor that has values nobody can compute with."""
    todo = "repair the checkpoint: what its weights compute is no number"
    return InputError(f"tensor {name!r}", expected=expected, found=found, todo=todo)


def _widened(rows: Array) -> Floats:
    """bfloat16 is the upper half of float32; numpy's own conversion of it is several times slower."""
    return np.left_shift(rows.view(np.uint16), 16, dtype=np.uint32).view(np.float32)
