"""Cutting runs out of a tensor, straight from mapped memory.

A run is (start, count) on one axis; an axis keeps several, in order. The result is row-major and contiguous.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Run = tuple[int, int]
Runs = tuple[tuple[Run, ...], ...]
Array = npt.NDArray[Any]

Touch = Callable[[int, int], None]

_BAND_BYTES = 8 << 20  # source rows copied between two releases: bounds resident memory, amortises the system call


def _ignore(first: int, rows: int) -> None:
    """Do nothing: memory that is not mapped from a file."""


def full_runs(shape: Sequence[int]) -> Runs:
    """The runs that keep everything."""
    return tuple(((0, size),) for size in shape)


def merge_runs(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The same indices in as few runs as possible: neighbours that touch become one."""
    merged: list[Run] = []
    for start, count in runs:
        if merged and sum(merged[-1]) == start:
            merged[-1] = (merged[-1][0], merged[-1][1] + count)
        else:
            merged.append((start, count))
    return tuple(merged)


def contiguous_block(shape: Sequence[int], runs: Runs) -> tuple[int, int] | None:
    """(first element, elements) when the slice of a row-major tensor is one block of memory, else None.

    It is one where at most one axis is cut, all axes before it keep a single index and all behind it are whole.
    """
    axes = [merge_runs(axis) for axis in runs]
    if any(len(axis) != 1 for axis in axes):
        return None
    cut = next((i for i, axis in enumerate(axes) if axis[0][1] != 1), len(axes))
    if any(axes[i][0] != (0, shape[i]) for i in range(cut + 1, len(axes))):
        return None
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    first = sum(axis[0][0] * stride for axis, stride in zip(axes, strides, strict=True))
    return first, math.prod(axis[0][1] for axis in axes)


def copy_runs(source: Array, runs: Runs, *, fetch: Touch = _ignore, release: Touch = _ignore) -> Array:
    """Copy the runs of `source` into a new array, a band of rows at a time.

    Args:
        source: [n0, n1, ...], row-major.
        runs: per axis.
        fetch: called with (first row, rows) of `source` just before they are read.
        release: called likewise once they are copied; their pages are not needed any more.
    """
    outer, inner = merge_runs(runs[0]), [merge_runs(axis) for axis in runs[1:]]
    shape = [sum(count for _, count in axis) for axis in (outer, *inner)]
    result: Array = np.empty(shape, source.dtype)
    band = max(1, _BAND_BYTES // max(1, source[:1].nbytes))
    at = 0
    for start, count in outer:
        for row in range(start, start + count, band):
            rows = min(band, start + count - row)
            fetch(row, rows)
            _copy_inner(source[row : row + rows], result[at : at + rows], inner)
            release(row, rows)
            at += rows
    return result


def _copy_inner(source: Array, result: Array, runs: Sequence[tuple[Run, ...]]) -> None:
    """Copy every combination of inner runs; neighbours on the last axis stay one memcpy."""
    for combination in itertools.product(*(_placed(axis) for axis in runs)):
        taken = (slice(None), *(slice(start, start + count) for start, count, _ in combination))
        put = (slice(None), *(slice(at, at + count) for _, count, at in combination))
        result[put] = source[taken]


def _placed(runs: Sequence[Run]) -> list[tuple[int, int, int]]:
    """(start, count, where it lands) of each run."""
    ends = itertools.accumulate((count for _, count in runs), initial=0)
    return [(start, count, at) for (start, count), at in zip(runs, ends, strict=False)]
