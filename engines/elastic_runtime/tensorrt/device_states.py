"""Where the states of an engine lie: one buffer for an output that must share its input's, two that swap for others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from elastic_runtime.driver.device import Arena, Device
from elastic_runtime.format.interface import Dim
from elastic_runtime.format.manifest import InputPort, OutputPort

DTYPES: dict[str, np.dtype[Any]] = {
    "int64": np.dtype(np.int64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def sized(shape: Sequence[Dim], sizes: dict[str, int]) -> tuple[int, ...]:
    """A shape with numbers for its symbols: ["B", 3, 544] with B = 2 is (2, 3, 544)."""
    return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in shape)


def nbytes(port: InputPort | OutputPort, sizes: dict[str, int]) -> int:
    """Bytes of a tensor of the interface."""
    return math.prod(sized(port.shape, sizes)) * DTYPES[port.dtype].itemsize


class DeviceStates:
    """Buffers of all states for up to `batch` sequences of `context` tokens.

    A call reads and writes what `addresses` of the present `side` binds; `swap` afterwards makes what was written what
    is read next.

    Args:
        device: where.
        outputs: of an engine; those with an `input` are states.
        batch: most rows.
        context: S of the engine.
    """

    def __init__(self, device: Device, outputs: Sequence[OutputPort], *, batch: int, context: int) -> None:
        self._device, self._ports = device, [port for port in outputs if port.input is not None]
        self._sizes = {"B": batch, "S": context}
        buffers = {}
        for port in self._ports:
            buffers[f"{port.input}/0"] = nbytes(port, self._sizes)
            if port.alias == "must_not":
                buffers[f"{port.input}/1"] = nbytes(port, self._sizes)
        self._buffers, self._arena = buffers, Arena(device, buffers)
        self.side = 0

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self._arena.nbytes

    def addresses(self, side: int) -> dict[str, int]:
        """The address of every state input and output for a call that reads that side."""
        found = {}
        for port in self._ports:
            shared = port.alias == "must"
            found[str(port.input)] = self._address(port, 0 if shared else side)
            found[port.name] = self._address(port, 0 if shared else 1 - side)
        return found

    def swap(self) -> None:
        """After a call: its outputs are the next call's inputs."""
        self.side = 1 - self.side

    def zero(self) -> None:
        """New sequences: what is read next is zero. Caches too: a NaN left in a masked row would spread.

        The second buffer of a pair stays as it is: a call writes all of it before the next one reads it.
        """
        self.side = 0
        for port in self._ports:
            self._device.zero(self._address(port, 0), self._buffers[f"{port.input}/0"])

    def read(self, batch: int) -> dict[str, npt.NDArray[Any]]:
        """A copy of every state of the first `batch` rows, by its input name; shapes and dtypes of the interface."""
        sizes, found = {**self._sizes, "B": batch}, {}
        for port in self._ports:
            array = np.empty(sized(port.shape, sizes), DTYPES[port.dtype])
            side = 0 if port.alias == "must" else self.side
            self._device.download(self._address(port, side), array)
            found[str(port.input)] = array
        return found

    def free(self) -> None:
        """Give the memory back."""
        self._arena.free()

    def _address(self, port: OutputPort, side: int) -> int:
        return self._arena.addresses[f"{port.input}/{side}"]
