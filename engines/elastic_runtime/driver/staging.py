"""Weights on their way to a card, through page-locked memory.

Copies from pageable memory, which a mapped file is, go through a buffer of the driver's own, one after the other, and
each call waits for the file to be read. Two buffers of ours take turns: the file is read and cut into one, by several
threads, while the other is copied.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from elastic_runtime.driver.blocks import Block, side_by_side
from elastic_runtime.driver.device import Array
from elastic_runtime.format.slicing import Read, read_runs

BUFFER = 64 << 20  # bytes: a copy of a few milliseconds


class Lane(Protocol):
    """The stream of a device, as far as staging needs it."""

    def host_buffer(self, nbytes: int) -> Array:
        """Bytes of page-locked main memory."""

    def free_host_buffer(self, buffer: Array) -> None:
        """Give it back."""

    def copy_rows(self, address: int, rows: Array, pitch: int) -> None:
        """Ask for a copy of contiguous rows [height, width] of bytes to rows `pitch` bytes apart; `rows` must stay."""

    def make_event(self) -> Any:
        """Something to be recorded and waited for."""

    def drop_event(self, event: Any) -> None:
        """Give it back."""

    def record(self, event: Any) -> None:
        """It happens when all that was asked for before is done."""

    def wait(self, event: Any) -> None:
        """Until it has happened."""


class Staging:
    """Two buffers on the lane.

    Raises:
        BuildError: no page-locked memory; nothing is held then.
    """

    def __init__(self, lane: Lane, nbytes: int = BUFFER) -> None:
        self._lane, self._nbytes, self._turn = lane, nbytes, 0
        self._buffers: list[Array] = []
        self._events: list[Any] = []
        self._used = [False, False]
        try:
            for _ in range(2):
                self._buffers.append(lane.host_buffer(nbytes))
                self._events.append(lane.make_event())
        except BaseException:  # an interrupt too
            self.close()
            raise

    def copy(self, address: int, read: Read, blocks: Sequence[Block]) -> None:
        """Strided copies of what `read` reads, which is read when this returns; done once the lane was waited for.

        Args:
            address: on the device, of what the blocks' targets count from.
            read: of what the blocks' sources count from.
            blocks: as strided_blocks gives them.
        """
        for columns in side_by_side(blocks):
            block = columns[0]
            width = sum(column.width for column in columns)
            if block.flat:
                size = block.width * block.height
                for at in range(0, size, self._nbytes):
                    count = min(self._nbytes, size - at)
                    self._rows(address, read, [Block(block.source + at, block.target + at, count, 1, count, count)])
            elif width <= self._nbytes:
                for row in range(0, block.height, step := self._nbytes // width):
                    rows = min(step, block.height - row)
                    self._rows(address, read, [_part(column, row, rows, 0, column.width) for column in columns])
            else:  # a row longer than a buffer comes in pieces
                for column, row in itertools.product(columns, range(block.height)):
                    for at in range(0, column.width, self._nbytes):
                        count = min(self._nbytes, column.width - at)
                        self._rows(address, read, [_part(column, row, 1, at, count)])

    def close(self) -> None:
        """Give the buffers back; what was asked for must have been waited for."""
        for event in self._events:
            self._lane.drop_event(event)
        for buffer in self._buffers:
            self._lane.free_host_buffer(buffer)
        self._events, self._buffers = [], []

    def _rows(self, address: int, read: Read, columns: Sequence[Block]) -> None:
        """Columns of the same rows, which a buffer holds, as one copy."""
        left, last = columns[0], columns[-1]
        runs = tuple((column.source - left.source, column.width) for column in columns)
        width = sum(column.width for column in columns)
        turn, self._turn = self._turn, 1 - self._turn
        if self._used[turn]:
            self._lane.wait(self._events[turn])
        filled = self._buffers[turn][: left.height * width].reshape(left.height, width)

        def read_columns(at: int, into: Array) -> None:
            read(left.source + at, into)

        byte = np.dtype(np.uint8)
        if left.height == 1:  # of one axis, so that a long piece is read in several
            read_runs(read_columns, (last.source + last.width - left.source,), byte, (runs,), into=filled[0])
        else:
            rows = ((0, left.height),)
            read_runs(read_columns, (left.height, left.source_pitch), byte, (rows, runs), into=filled)
        self._lane.copy_rows(address + left.target, filled, left.target_pitch)
        self._lane.record(self._events[turn])
        self._used[turn] = True


def _part(block: Block, row: int, rows: int, column: int, width: int) -> Block:
    """`rows` rows of a block from `row` on, `width` bytes of each from `column` on."""
    source = block.source + row * block.source_pitch + column
    target = block.target + row * block.target_pitch + column
    return Block(source, target, width, rows, block.source_pitch, block.target_pitch)
