"""Cutting runs out of a tensor, straight from mapped memory.

A run is (start, count) on one axis; an axis keeps several, in order. The result is row-major and contiguous.
Checkpoint, graph, passes, recipes and manifests say which part of a tensor they mean in these two types.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

#: (start, count) along one axis: ascending, not empty, not overlapping.
Runs = tuple[tuple[int, int], ...]
#: One `Runs` per axis of a tensor.
TensorRuns = tuple[Runs, ...]
Array = npt.NDArray[Any]

Touch = Callable[[int, int], None]

_BAND_BYTES = 8 << 20  # source rows copied between two releases: bounds resident memory, amortises the system call
_MOST_THREADS = 4  # copying fresh memory is bound by page faults first, by the memory itself soon after


def _ignore(first: int, rows: int) -> None:
    """Do nothing: memory that is not mapped from a file."""


def full_runs(shape: Sequence[int]) -> TensorRuns:
    """The runs that keep everything of a tensor of this shape."""
    return tuple(((0, size),) for size in shape)


def merge_runs(runs: Iterable[tuple[int, int]]) -> Runs:
    """The same indices in as few runs as possible: neighbours that touch become one."""
    merged: list[tuple[int, int]] = []
    for start, count in runs:
        if merged and sum(merged[-1]) == start:  # start + count: where it ends
            merged[-1] = (merged[-1][0], merged[-1][1] + count)
        else:
            merged.append((start, count))
    return tuple(merged)


@dataclass(frozen=True)
class Window:
    """Where a part of an array of `shape` lies: `size` indices from `first` along `axis`, all of the other axes."""

    shape: tuple[int, ...]
    axis: int
    first: int
    size: int

    def view(self, whole: Array) -> Array:
        """That part of `whole`, not copied."""
        view: Array = whole[(slice(None),) * self.axis + (slice(self.first, self.first + self.size),)]
        return view


def joined_shape(shapes: Sequence[tuple[int, ...]], axis: int) -> tuple[int, ...] | None:
    """Shape of arrays laid one behind the other along `axis`; None where they do not fit together."""
    if len({len(shape) for shape in shapes}) != 1 or not 0 <= axis < len(shapes[0]):
        return None
    before, behind = shapes[0][:axis], shapes[0][axis + 1 :]
    if any(shape[:axis] != before or shape[axis + 1 :] != behind for shape in shapes):
        return None
    return (*before, sum(shape[axis] for shape in shapes), *behind)


def windows_of(shapes: Sequence[tuple[int, ...]], axis: int) -> tuple[Window, ...]:
    """Where each of the arrays lies in the one that they make along `axis`; they fit together (`joined_shape`)."""
    whole = joined_shape(shapes, axis)
    assert whole is not None
    sizes = [shape[axis] for shape in shapes]
    firsts = itertools.accumulate(sizes, initial=0)
    return tuple(Window(whole, axis, first, size) for first, size in zip(firsts, sizes, strict=False))


def contiguous_block(shape: Sequence[int], runs: TensorRuns) -> tuple[int, int] | None:
    """(first element, elements) when the slice of a row-major tensor is one block of memory, else None.

    It is one where at most one axis is cut, all axes before it keep a single index and all behind it are whole.
    """
    axes = [merge_runs(axis) for axis in runs]  # as a recipe from elsewhere may hold runs that touch
    if any(len(axis) != 1 for axis in axes):
        return None
    cut = next((i for i, axis in enumerate(axes) if axis[0][1] != 1), len(axes))
    if any(axes[i][0] != (0, shape[i]) for i in range(cut + 1, len(axes))):
        return None
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    first = sum(axis[0][0] * stride for axis, stride in zip(axes, strides, strict=True))
    return first, math.prod(axis[0][1] for axis in axes)


def copy_runs(
    source: Array, runs: TensorRuns, *, into: Array | None = None, fetch: Touch = _ignore, release: Touch = _ignore
) -> Array:
    """Copy the runs of `source` into an array, a band of rows at a time, several bands at once.

    Args:
        source: [n0, n1, ...], row-major.
        runs: per axis.
        into: what to write and return, of the slice's shape and the source's dtype, its last axis without gaps (a
            `Window` of a row-major array, say); a new array unless given.
        fetch: called with (first row, rows) of `source` just before they are read, from any thread; gaps between short
            runs are among them.
        release: called likewise once they are copied; their pages are not needed any more.
    """
    outer, *inner = (_combs(merge_runs(axis)) for axis in runs)
    shape = [sum(comb.count * comb.times for comb in axis) for axis in (outer, *inner)]
    result: Array = np.empty(shape, source.dtype) if into is None else into
    if list(result.shape) != shape or result.dtype != source.dtype:  # what lies around it would be overwritten
        raise ValueError(f"a slice {shape} of {source.dtype} into an array {list(result.shape)} of {result.dtype}")

    def copy(band: _Comb) -> None:
        fetch(band.start, band.span)
        for combination in itertools.product(*inner):
            _copy_combs(source, result, (band, *combination))
        release(band.start, band.span)

    bands = list(_bands(outer, max(1, _BAND_BYTES // max(1, source[:1].nbytes))))
    threads = min(_MOST_THREADS, _processors(), result.nbytes // _BAND_BYTES)
    if threads < 2:
        for band in bands:
            copy(band)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(copy, bands))
    return result


@dataclass(frozen=True)
class _Comb:
    """Runs of one length at one distance, `times` of them: the kept channels of each head of a group, say.

    numpy copies them in one call, which a loop over the runs would pay for by the head.
    """

    start: int
    count: int
    period: int
    times: int
    at: int  # where the first lands; the others follow without gaps

    @property
    def span(self) -> int:
        """From the first index to behind the last."""
        return (self.times - 1) * self.period + self.count

    def part(self, first: int, times: int) -> _Comb:
        """`times` of its runs from the `first` on."""
        return replace(self, start=self.start + first * self.period, times=times, at=self.at + first * self.count)


def _combs(runs: Runs) -> list[_Comb]:
    """The runs in as few combs as greed finds."""
    combs = list[_Comb]()
    ends = itertools.accumulate((count for _, count in runs), initial=0)
    for (start, count), at in zip(runs, ends, strict=False):
        last = combs[-1] if combs else None
        if last is not None and count == last.count:
            distance = start - (last.start + (last.times - 1) * last.period)
            if distance > count and (last.times == 1 or distance == last.period):
                combs[-1] = replace(last, period=distance, times=last.times + 1)
                continue
        combs.append(_Comb(start, count, count, 1, at))
    return combs


def _bands(combs: Sequence[_Comb], most: int) -> Iterator[_Comb]:
    """The combs in pieces that span at most `most` rows, gaps included."""
    for comb in combs:
        at_once = max(1, most // comb.period)
        for first in range(0, comb.times, at_once):
            piece = comb.part(first, min(at_once, comb.times - first))
            for done in range(0, piece.count, most):  # more than once only where one run alone is too long
                rows = min(most, piece.count - done)
                yield replace(piece, start=piece.start + done, count=rows, at=piece.at + done)


def _copy_combs(source: Array, result: Array, combs: Sequence[_Comb]) -> None:
    """Copy one comb per axis; a run of the last axis is one element, which numpy moves whole."""
    taken = source[tuple(slice(comb.start, comb.start + comb.count) for comb in combs)]
    put = result[tuple(slice(comb.at, comb.at + comb.count) for comb in combs)]
    shape = [size for comb in combs for size in (comb.times, comb.count)][:-1]
    run = np.dtype((np.void, combs[-1].count * source.itemsize))
    as_strided(put.view(run), shape, _strides(put, [comb.count for comb in combs]))[...] = as_strided(
        taken.view(run), shape, _strides(taken, [comb.period for comb in combs]), writeable=False
    )


def _strides(array: Array, periods: Sequence[int]) -> list[int]:
    """Bytes from run to run and from index to index, axis by axis; the last axis has runs only."""
    pairs = zip(array.strides, periods, strict=True)
    return [size for stride, period in pairs for size in (period * stride, stride)][:-1]


def _processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
