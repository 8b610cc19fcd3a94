"""What the engine backend needs of a device, so that everything above it is tested where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from elastic_runtime.driver.blocks import Block
from elastic_runtime.format.slicing import Read

ALIGNMENT = 256  # bytes: what bindings of an engine must have
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """`height` rows of `width` bytes, `target_pitch` and `source_pitch` bytes apart. None is empty."""

    height: int
    width: int
    target_pitch: int
    source_pitch: int


class Device(Protocol):
    """One card, one stream: work is done in the order in which it is asked for; `synchronize` waits for it.

    Addresses are integers, 0 is none. Every method raises BuildError when the device fails, UnavailableError when
    it has no room.
    """

    stream: int

    def allocate(self, nbytes: int) -> int:
        """`nbytes` of linear memory, 256-byte aligned; what it holds is unspecified."""

    def free(self, address: int) -> None:
        """Give an allocation back."""

    def zero(self, address: int, nbytes: int) -> None:
        """Set bytes to zero."""

    def upload(self, address: int, array: Array) -> None:
        """Copy a contiguous array; it may be changed afterwards."""

    def copy(self, target: int, source: int, rows: Rows) -> None:
        """Copy rows of bytes within the device."""

    def upload_blocks(self, address: int, read: Read, blocks: Sequence[Block]) -> None:
        """Strided copies of what `read` reads; all of it is read when this returns."""

    def finish_uploads(self) -> None:
        """Wait for the copies of `upload_blocks` and give back what they took."""

    def host_buffer(self, nbytes: int) -> Array:
        """Bytes of main memory that the device copies to without a detour (page-locked)."""

    def free_host_buffer(self, buffer: Array) -> None:
        """Give one back; nobody may read it then."""

    def download(self, address: int, array: Array) -> None:
        """Copy into a contiguous array; complete when this returns."""

    def synchronize(self) -> None:
        """Wait until everything asked for is done."""

    def capture(self, work: Callable[[], None]) -> Any:
        """Record what `work` asks of the stream, without doing it; `launch` does it."""

    def launch(self, graph: Any) -> None:
        """Do what was recorded."""

    def drop(self, graph: Any) -> None:
        """Forget what was recorded."""

    def close(self) -> None:
        """Give the device back."""


class Arena:
    """Several buffers in one allocation, each aligned; freed together."""

    def __init__(self, device: Device, sizes: dict[str, int]) -> None:
        self._device, at, offsets = device, 0, dict[str, int]()
        for name, size in sizes.items():
            offsets[name] = at
            at += -(-size // ALIGNMENT) * ALIGNMENT
        self.nbytes = at
        self._base = device.allocate(max(at, ALIGNMENT))
        self.addresses = {name: self._base + offset for name, offset in offsets.items()}

    def free(self) -> None:
        """Give the memory back."""
        base, self._base = self._base, 0
        if base:
            self._device.free(base)
