"""Cutting runs out of a tensor, in memory or in a file.

A run is (start, count) on one axis; an axis keeps several, in order. The result is row-major and contiguous.
Checkpoint, graph, passes, recipes and manifests say which part of a tensor they mean in these two types.

A file is read, not mapped: mapping pages to copy them once, and unmapping them, costs more than copying them twice, the
first time into memory that stays in the processor's cache.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from elastic_runtime.format.fresh_memory import fresh_array

#: (start, count) along one axis: ascending, not empty, not overlapping.
Runs = tuple[tuple[int, int], ...]
#: One `Runs` per axis of a tensor.
TensorRuns = tuple[Runs, ...]
Array = npt.NDArray[Any]

#: Fills an array of bytes with those of a tensor from a byte on, from any thread.
Read = Callable[[int, Array], None]

_BAND_BYTES = 4 << 20  # of source rows cut at once: little for a processor's cache, much for a call of Python's
_MOST_THREADS = 4  # memory is the limit soon after
#: Bytes of a run that is copied as one element, in one step of numpy's loop. The rows of long ones it moves whole
#: anyway, and it keeps the interpreter to itself for up to 500 elements, which may be all of a band.
_SHORT_RUN = 1 << 10

_buffers = threading.local()  # of every thread that cuts files: `band`, _BAND_BYTES of it


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


def copy_runs(source: Array, runs: TensorRuns, *, into: Array | None = None) -> Array:
    """Copy the runs of `source` into an array, a band of rows at a time, several bands at once.

    Args:
        source: [n0, n1, ...], row-major.
        runs: per axis.
        into: what to write and return, of the slice's shape and the source's dtype, its last axis without gaps (a
            `Window` of a row-major array, say); a new array unless given.
    """
    result, outer, inner = _prepared(source.dtype, runs, into)

    def cut(band: _Comb) -> None:
        _copy_band(source[band.start : band.start + band.span], result, band, inner)

    _at_once(cut, _bands(outer, source[:1].nbytes))
    return result


def read_runs(
    read: Read, shape: Sequence[int], dtype: np.dtype[Any], runs: TensorRuns, *, into: Array | None = None
) -> Array:
    """As `copy_runs`, of a tensor that `read` reads: whole rows to where they belong, others by way of a buffer.

    Beside the result a band of 4 MiB is held a thread, or a row where that is longer. What `read` raises comes out when
    no thread writes any more.

    Args:
        read: called with a byte of the tensor and a contiguous array of bytes to fill; what lies between short runs is
            read with them, what lies behind the last is not.
        shape: [n0, n1, ...] of the tensor, row-major.
        dtype: of the tensor and the result.
        runs: per axis.
        into: as for `copy_runs`.
    """
    result, outer, inner = _prepared(dtype, runs, into)
    inside = shape[1:]
    row, whole = math.prod(inside) * dtype.itemsize, runs[1:] == full_runs(inside)
    last = (axis[-1][0] + axis[-1][1] - 1 for axis in runs[1:])
    strides = (math.prod(inside[axis + 1 :]) for axis in range(len(inside)))
    reach = (1 + sum(index * stride for index, stride in zip(last, strides, strict=True))) * dtype.itemsize

    def cut(band: _Comb) -> None:
        put = result[band.at : band.at + band.count]
        if whole and not band.steps and put.flags.c_contiguous:
            read(band.start * row, put.reshape(-1).view(np.uint8))
            return
        rows = _buffer(band.span * row)
        read(band.start * row, rows[: (band.span - 1) * row + reach])
        _copy_band(rows.view(dtype).reshape(band.span, *inside), result, band, inner)

    _at_once(cut, _bands(outer, row))
    return result


def reader_of(source: Array) -> Read:
    """Reads bytes, one axis of them, that are in memory already."""

    def read(at: int, into: Array) -> None:
        into[...] = source[at : at + into.size]

    return read


def _prepared(
    dtype: np.dtype[Any], runs: TensorRuns, into: Array | None
) -> tuple[Array, list[_Comb], list[list[_Comb]]]:
    """Where to write, and the combs of the first axis, which is cut into bands, and of each of the others."""
    outer, *inner = (merge_runs(axis) for axis in runs)
    shape = [sum(count for _, count in axis) for axis in (outer, *inner)]
    result: Array = fresh_array(shape, dtype) if into is None else into
    if list(result.shape) != shape or result.dtype != dtype:  # what lies around it would be overwritten
        raise ValueError(f"a slice {shape} of {dtype} into an array {list(result.shape)} of {result.dtype}")
    return result, _combs(outer, 1), [_combs(axis, 2) for axis in inner]


def _buffer(nbytes: int) -> Array:
    """Memory of this thread, the same at every call unless it is for more than a band."""
    if nbytes > _BAND_BYTES:
        return np.empty(nbytes, np.uint8)
    band: Array | None = getattr(_buffers, "band", None)
    if band is None or band.size < nbytes:
        band = _buffers.band = np.empty(_BAND_BYTES, np.uint8)
    return band[:nbytes]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads for all tensors: those of a tensor of its own would take as long to start as it takes to read.

    No more of them than work at once beside the caller: each holds a band.
    """
    return ThreadPoolExecutor(max(1, _most_threads() - 1), "slicing")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay behind in the parent


def _at_once(work: Callable[[_Comb], None], bands: Sequence[_Comb]) -> None:
    """Do the work for every band, on several threads where there are several of both; the caller's is one of them."""
    threads, shared = min(_most_threads(), len(bands)), iter(bands)

    def take() -> None:
        try:
            for band in shared:
                work(band)
        finally:
            list(shared)  # after a failure nobody begins another

    futures = list[Future[None]]()
    try:
        with suppress(RuntimeError):  # the machine has no more threads, or the interpreter ends
            for _ in range(threads - 1):
                futures.append(_pool().submit(take))
        take()
        _wait(futures)
    finally:
        list(shared)  # Ctrl-C may have come while threads were started or waited for: none may write after this
        _wait(futures)
    for future in futures:
        if not future.cancelled():
            future.result()


def _wait(futures: Iterable[Future[None]]) -> None:
    """For those that have begun; the others never will."""
    wait([future for future in futures if not future.cancel()])


@dataclass(frozen=True)
class _Comb:
    """Runs of one length at one distance, or combs of one kind: the kept channels of each head, of each group.

    numpy copies them in one call, which a loop over the runs would pay for by the head.
    """

    start: int
    count: int
    at: int  # where the first lands; the others follow without gaps
    steps: tuple[tuple[int, int], ...] = ()  # (distance, times), of the widest first

    @property
    def span(self) -> int:
        """From the first index to behind the last."""
        return self.count + sum(distance * (times - 1) for distance, times in self.steps)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its indices."""
        return (*(times for _, times in self.steps), self.count)

    @property
    def taken(self) -> tuple[int, ...]:
        """Indices from one to the next, of the source."""
        return (*(distance for distance, _ in self.steps), 1)

    @property
    def put(self) -> tuple[int, ...]:
        """The same of the result."""
        return tuple(math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))


def _combs(runs: Runs, levels: int) -> list[_Comb]:
    """The runs in as few combs as greed finds, with at most that many steps each."""
    ends = itertools.accumulate((count for _, count in runs), initial=0)
    combs = [_Comb(start, count, at) for (start, count), at in zip(runs, ends, strict=False)]
    for _ in range(levels):
        combs = list(_joined(combs))
    return combs


def _joined(combs: Sequence[_Comb]) -> Iterator[_Comb]:
    """Equal neighbours at one distance as one comb."""
    first = 0
    while first < len(combs):
        unit, end, distance = combs[first], first + 1, 0
        while end < len(combs) and (combs[end].count, combs[end].steps) == (unit.count, unit.steps):
            distance = distance or combs[end].start - unit.start
            if combs[end].start - combs[end - 1].start != distance:
                break
            end += 1
        yield replace(unit, steps=((distance, end - first), *unit.steps)) if end > first + 1 else unit
        first = end


def _bands(combs: Sequence[_Comb], row: int) -> list[_Comb]:
    """The combs of the first axis in pieces of at most a band, gaps included, where one row is not more already."""
    most, pieces = max(1, _BAND_BYTES // max(1, row)), list[_Comb]()
    for comb in combs:
        [(distance, times)] = comb.steps or ((comb.count, 1),)
        at_once = max(1, most // distance)
        for first in range(0, times, at_once):
            start, at = comb.start + first * distance, comb.at + first * comb.count
            if (now := min(at_once, times - first)) > 1:
                pieces.append(_Comb(start, comb.count, at, ((distance, now),)))
                continue
            for done in range(0, comb.count, most):  # more than once only where one run alone is too long
                pieces.append(_Comb(start + done, min(most, comb.count - done), at + done))
    return pieces


def _copy_band(rows: Array, result: Array, band: _Comb, inner: Sequence[Sequence[_Comb]]) -> None:
    """Copy a band whose rows are those from its first to its last."""
    for combs in itertools.product([replace(band, start=0)], *inner):
        _copy_combs(rows, result, combs)


def _copy_combs(source: Array, result: Array, combs: Sequence[_Comb]) -> None:
    """Copy one comb per axis."""
    taken = source[tuple(slice(comb.start, comb.start + comb.count) for comb in combs)]
    put = result[tuple(slice(comb.at, comb.at + comb.count) for comb in combs)]
    sizes = [size for comb in combs for size in comb.shape]
    steps = _strides(taken, [comb.taken for comb in combs]), _strides(put, [comb.put for comb in combs])
    if (run := combs[-1].count * source.itemsize) <= _SHORT_RUN:
        whole = np.dtype((np.void, run))
        taken, put, sizes, steps = taken.view(whole), put.view(whole), sizes[:-1], (steps[0][:-1], steps[1][:-1])
    as_strided(put, sizes, steps[1])[...] = as_strided(taken, sizes, steps[0], writeable=False)


def _strides(array: Array, indices: Sequence[Sequence[int]]) -> list[int]:
    """Bytes from step to step, axis by axis."""
    return [step * stride for stride, steps in zip(array.strides, indices, strict=True) for step in steps]


def _most_threads() -> int:
    return min(_MOST_THREADS, _processors())


def _processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
