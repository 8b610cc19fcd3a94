"""A slice as strided copies, `height` rows of `width` bytes: what a device is given of a file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from elastic_runtime.errors import InputError
from elastic_runtime.format.slicing import Runs, TensorRuns, Window, merge_runs

_MOST_BLOCKS = 4_000_000


@dataclass(frozen=True)
class Block:
    """Offsets and pitches in bytes, of the parent tensor and of the result (cudaMemcpy2D has the same shape).

    Where the result is part of a larger array, they are those of that array.
    """

    source: int
    target: int
    width: int
    height: int
    source_pitch: int
    target_pitch: int

    @property
    def flat(self) -> bool:
        """Whether it is one piece of memory on both sides, so that a copy of one dimension does."""
        return self.height == 1 or self.width == self.source_pitch == self.target_pitch


def strided_blocks(shape: Sequence[int], runs: TensorRuns, itemsize: int, window: Window | None = None) -> list[Block]:
    """The copies that cut `runs` out of a row-major tensor, in ascending order of the result.

    Args:
        shape: of the tensor.
        runs: per axis, inside `shape`.
        itemsize: bytes of an element.
        window: where the slice lies in the array that is written; it is that array unless given.

    Raises:
        InputError: more than 4 million pieces.
    """
    axes, unit = _axes(shape, runs, itemsize, window)
    pieces = math.prod(axis.kept for axis in axes[:-2]) * math.prod(len(axis.runs) for axis in axes[-2:])
    if pieces > _MOST_BLOCKS:
        raise InputError(
            "slice", expected=f"at most {_MOST_BLOCKS} pieces", found=str(pieces), todo="export with --weights sliced"
        )
    *outer, rows, columns = axes
    row, target_row = columns.size * unit, columns.width * unit
    blocks = list[Block]()
    for place in itertools.product(*(axis.pairs() for axis in outer)):
        source, target = 0, 0  # number of the plane of the last two axes, read and written
        for axis, (index, at) in zip(outer, place, strict=True):
            source, target = source * axis.size + index, target * axis.width + at
        row_at = target * rows.width + rows.first
        for first, height in rows.runs:
            base = (source * rows.size + first) * row
            at = row_at * target_row + columns.first * unit
            for start, count in columns.runs:
                blocks.append(Block(base + start * unit, at, count * unit, height, row, target_row))
                at += count * unit
            row_at += height
    return blocks


def side_by_side(blocks: Sequence[Block]) -> Iterator[Sequence[Block]]:
    """The blocks in groups of columns of the same rows, which lie beside each other in the result; a flat one alone."""
    first = 0
    for at in range(1, len(blocks) + 1):
        if at == len(blocks) or not _beside(blocks[first], blocks[at - 1], blocks[at]):
            yield blocks[first:at]
            first = at


def _beside(left: Block, last: Block, block: Block) -> bool:
    """Whether a block comes behind `last` in every row of those from `left` on."""
    same = (block.height, block.source_pitch, block.target_pitch) == (left.height, left.source_pitch, left.target_pitch)
    follows = block.target == last.target + last.width and block.source >= last.source + last.width
    return not left.flat and same and follows and block.source + block.width <= left.source + left.source_pitch


@dataclass(frozen=True)
class _Axis:
    """The runs of an axis of `size`, written one behind the other from index `first` of an axis of `width`."""

    size: int
    runs: Runs
    width: int
    first: int

    @property
    def kept(self) -> int:
        """How many indices it keeps."""
        return sum(count for _, count in self.runs)

    @property
    def whole(self) -> bool:
        """Whether it is copied as it is, and fills what is written."""
        return self.runs == ((0, self.size),) and self.width == self.size

    def pairs(self) -> list[tuple[int, int]]:
        """(index of the source, index of the target) of everything it keeps."""
        indices = [start + i for start, count in self.runs for i in range(count)]
        return [(index, at) for at, index in enumerate(indices, self.first)]


def _axes(shape: Sequence[int], runs: TensorRuns, itemsize: int, window: Window | None) -> tuple[list[_Axis], int]:
    """At least two axes, whole ones at the end folded into the element, and the bytes of that element."""
    axes, unit = list[_Axis](), itemsize
    for number, (size, kept) in enumerate(zip(shape, runs, strict=True)):
        width, first = sum(count for _, count in kept), 0
        if window is not None and number == window.axis:
            width, first = window.shape[number], window.first
        axes.append(_Axis(size, merge_runs(kept), width, first))
    while len(axes) > 1 and axes[-1].whole:
        unit *= axes.pop().size
    return ([_Axis(1, ((0, 1),), 1, 0), *axes] if len(axes) == 1 else axes), unit
