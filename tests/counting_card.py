"""A card of the demo engines' class, and a device that only counts what is taken of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from elastic_runtime.driver.device import ALIGNMENT
from elastic_runtime.driver.free_memory import Card

GIB = 1 << 30
CARD = Card("GeForce RTX 5080", "12.0", 16 * GIB, 15 * GIB)


class Device:
    """Only counts: what is held of its memory, page-locked buffers that are, bytes that were uploaded.

    Args:
        on_call: hears the name of every call but `close`, and may raise.
    """

    stream = 1

    def __init__(self, on_call: Callable[[str], None] = lambda name: None) -> None:
        self.held: dict[int, int] = {}
        self.uploaded = self.buffers = 0
        self.closed = False
        self._on_call = on_call

    def allocate(self, nbytes: int) -> int:
        self._on_call("allocate")
        address = ALIGNMENT * 1000 * (len(self.held) + 1) + sum(self.held.values()) // ALIGNMENT * ALIGNMENT
        self.held[address] = nbytes
        return address

    def upload_blocks(self, address: int, read: Any, blocks: Any) -> None:
        self._on_call("upload_blocks")
        self.uploaded += sum(block.width * block.height for block in blocks)

    def finish_uploads(self) -> None:
        self._on_call("finish_uploads")

    def host_buffer(self, nbytes: int) -> Any:
        self._on_call("host_buffer")
        self.buffers += 1
        return np.zeros(nbytes, np.uint8)

    def free_host_buffer(self, buffer: Any) -> None:
        self.buffers -= 1
        self._on_call("free_host_buffer")

    def free(self, address: int) -> None:
        del self.held[address]
        self._on_call("free")

    def zero(self, address: int, nbytes: int) -> None:
        self._on_call("zero")

    def synchronize(self) -> None:
        self._on_call("synchronize")

    def close(self) -> None:
        self.closed = True


class Executor:
    def set_shape(self, name: str, shape: Any) -> None:
        pass

    def set_address(self, name: str, address: int) -> None:
        pass
