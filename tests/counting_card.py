"""A card of the demo engines' class, and a device that only counts what is taken of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from elastic_runtime.driver.device import ALIGNMENT
from elastic_runtime.driver.free_memory import Card

GIB = 1 << 30
CARD = Card("GeForce RTX 5080", "12.0", 16 * GIB, 15 * GIB)


class Device:
    """Only counts."""

    stream = 1

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.uploaded = 0
        self.closed = False

    def allocate(self, nbytes: int) -> int:
        address = ALIGNMENT * 1000 * (len(self.held) + 1) + sum(self.held.values()) // ALIGNMENT * ALIGNMENT
        self.held[address] = nbytes
        return address

    def upload_blocks(self, address: int, read: Any, blocks: Any) -> None:
        self.uploaded += sum(block.width * block.height for block in blocks)

    def finish_uploads(self) -> None:
        pass

    def host_buffer(self, nbytes: int) -> Any:
        return np.zeros(nbytes, np.uint8)

    def free_host_buffer(self, buffer: Any) -> None:
        pass

    def free(self, address: int) -> None:
        del self.held[address]

    def zero(self, address: int, nbytes: int) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Executor:
    def set_shape(self, name: str, shape: Any) -> None:
        pass

    def set_address(self, name: str, address: int) -> None:
        pass
