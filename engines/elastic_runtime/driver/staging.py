"""Weights on their way to a card, through page-locked memory.

Copies from pageable memory, which a mapped file is, go through a buffer of the driver's own, one after the other, and
each call waits for the file to be read. Two buffers of ours take turns: one is filled while the other is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from elastic_runtime.driver.blocks import Block
from elastic_runtime.driver.device import Array

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
        except Exception:
            self.close()
            raise

    def copy(self, address: int, source: Array, blocks: Sequence[Block]) -> None:
        """Strided copies from the bytes of `source`, which may change afterwards; done once the lane was waited for.

        Args:
            address: on the device, of what the blocks' targets count from.
            source: bytes, one axis.
            blocks: as strided_blocks gives them.
        """
        for block in blocks:
            if block.flat:
                size = block.width * block.height
                for at in range(0, size, self._nbytes):
                    count = min(self._nbytes, size - at)
                    self._rows(
                        address + block.target + at, source[block.source + at :][:count].reshape(1, count), count
                    )
                continue
            for row in range(0, block.height, step := max(1, self._nbytes // block.width)):
                for column in range(0, block.width, self._nbytes):  # a row longer than a buffer comes in pieces
                    shape = (min(step, block.height - row), min(self._nbytes, block.width - column))
                    start = source[block.source + row * block.source_pitch + column :]
                    rows = np.lib.stride_tricks.as_strided(start, shape, (block.source_pitch, 1), writeable=False)
                    target = address + block.target + row * block.target_pitch + column
                    self._rows(target, rows, block.target_pitch)

    def close(self) -> None:
        """Give the buffers back; what was asked for must have been waited for."""
        for event in self._events:
            self._lane.drop_event(event)
        for buffer in self._buffers:
            self._lane.free_host_buffer(buffer)
        self._events, self._buffers = [], []

    def _rows(self, target: int, rows: Array, pitch: int) -> None:
        turn, self._turn = self._turn, 1 - self._turn
        if self._used[turn]:
            self._lane.wait(self._events[turn])
        filled = self._buffers[turn][: rows.size].reshape(rows.shape)
        np.copyto(filled, rows)
        self._lane.copy_rows(target, filled, pitch)
        self._lane.record(self._events[turn])
        self._used[turn] = True
