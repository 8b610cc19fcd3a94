"""A slice as strided copies, `height` rows of `width` bytes: what a device copies straight from a mapped file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from elastic_runtime.errors import InputError
from elastic_runtime.slicing import Runs, TensorRuns, merge_runs

_MOST_BLOCKS = 4_000_000


@dataclass(frozen=True)
class Block:
    """Offsets and pitches in bytes, of the parent tensor and of the result (cudaMemcpy2D has the same shape)."""

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


def strided_blocks(shape: Sequence[int], runs: TensorRuns, itemsize: int) -> list[Block]:
    """The copies that cut `runs` out of a row-major tensor, in ascending order of the result.

    Args:
        shape: of the tensor.
        runs: per axis, inside `shape`.
        itemsize: bytes of an element.

    Raises:
        InputError: more than 4 million pieces.
    """
    sizes, axes, unit = _folded(shape, [merge_runs(axis) for axis in runs], itemsize)
    pieces = math.prod(sum(count for _, count in axis) for axis in axes[:-2]) * math.prod(map(len, axes[-2:]))
    if pieces > _MOST_BLOCKS:
        raise InputError("slice", expected=f"at most {_MOST_BLOCKS} pieces", found=str(pieces))
    kept = [sum(count for _, count in axis) for axis in axes]
    row, target_row = sizes[-1] * unit, kept[-1] * unit
    outer = [[start + i for start, count in axis for i in range(count)] for axis in axes[:-2]]
    blocks, target = list[Block](), 0
    for place in itertools.product(*outer):
        base = 0
        for index, size in zip(place, sizes, strict=False):
            base = base * size + index
        for first, rows in axes[-2]:
            source = (base * sizes[-2] + first) * row
            at = target
            for start, count in axes[-1]:
                blocks.append(Block(source + start * unit, at, count * unit, rows, row, target_row))
                at += count * unit
            target += rows * target_row
    return blocks


def _folded(shape: Sequence[int], axes: list[Runs], itemsize: int) -> tuple[list[int], list[Runs], int]:
    """At least two axes, whole ones at the end folded into the element: sizes, runs, bytes of an element."""
    sizes, axes, unit = list(shape), list(axes), itemsize
    while len(sizes) > 1 and axes[-1] == ((0, sizes[-1]),):
        unit *= sizes.pop()
        axes.pop()
    return ([1, *sizes], [((0, 1),), *axes], unit) if len(sizes) == 1 else (sizes, axes, unit)
