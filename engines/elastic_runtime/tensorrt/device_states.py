"""Where the states of an engine lie: one buffer for an output that must share its input's, two that swap for others."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt

from elastic_runtime.backend import DeviceName, not_of_this_backend
from elastic_runtime.driver.device import Arena, Device, Rows
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


class _Block(NamedTuple):
    """How a state lies: `height` times `whole` bytes, of which a copy has the first `kept` each."""

    height: int
    whole: int
    kept: int

    @property
    def size(self) -> int:
        """Bytes of the copy."""
        return self.height * self.kept


class SavedDeviceStates:
    """`SavedStates` of an engine: one allocation on its device, or arrays of bytes in main memory.

    What is on the device goes with the last reference to it, or with the backend.
    """

    def __init__(self, layout: dict[str, tuple[str, tuple[Dim, ...], int]], batch: int, rows: int) -> None:
        self.layout, self.batch, self.rows = layout, batch, rows
        self.arrays: dict[str, npt.NDArray[np.uint8]] = {}
        self.arena: Arena | None = None
        self.device: DeviceName = "cpu"

    def hold(self, arena: Arena) -> None:
        """Be on the device of the arena, and its owner."""
        self.arena, self.device = arena, "gpu"
        weakref.finalize(self, arena.free).atexit = False  # at the end of the program the card is gone already

    @property
    def nbytes(self) -> int:
        """Bytes where it lies."""
        return sum(array.nbytes for array in self.arrays.values()) + (self.arena.nbytes if self.arena else 0)

    def free(self) -> None:
        """See `SavedStates`."""
        arena, self.arena, self.arrays = self.arena, None, {}
        if arena is not None:
            arena.free()


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
        self._saved = weakref.WeakSet[SavedDeviceStates]()
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

    def save(self, batch: int, rows: int, device: DeviceName) -> SavedDeviceStates:
        """A copy of every state of the first `batch` sequences, of caches their first `rows` rows."""
        saved = SavedDeviceStates(self._layout(), batch, rows)
        sizes = {str(port.input): self._block(port, saved).size for port in self._ports}
        if device == "gpu":
            arena = Arena(self._device, sizes)
            saved.hold(arena)
            self._saved.add(saved)
            for port in self._ports:
                self._pack(port, saved, arena.addresses[str(port.input)])
            return saved
        with self._staging(max(sizes.values())) as staging:  # one state after the other: they are small, a card is full
            for port in self._ports:
                self._pack(port, saved, staging)
                saved.arrays[str(port.input)] = array = np.empty(sizes[str(port.input)], np.uint8)
                if array.size:
                    self._device.download(staging, array)
        return saved

    def load(self, saved: SavedDeviceStates) -> None:
        """Put a copy back; rows of caches beyond those that it has become zero. Raises InputError about another's."""
        if saved.layout != self._layout():
            raise not_of_this_backend("states of another shape or dtype")
        if saved.arena is None and saved.arrays.keys() != saved.layout.keys():
            raise not_of_this_backend("none: it was closed, or the session beside which it lay on the card")
        self.zero()
        if saved.arena is not None:
            for port in self._ports:
                self._unpack(port, saved, saved.arena.addresses[str(port.input)])
            return
        with self._staging(max(array.size for array in saved.arrays.values())) as staging:
            for port in self._ports:
                array = saved.arrays[str(port.input)]
                if array.size:
                    self._device.upload(staging, array)
                    self._unpack(port, saved, staging)

    def free(self) -> None:
        """Give the memory back, and that of copies on the device."""
        with ExitStack() as steps:
            steps.callback(self._arena.free)
            for saved in list(self._saved):
                steps.callback(saved.free)

    def _layout(self) -> dict[str, tuple[str, tuple[Dim, ...], int]]:
        return {str(port.input): (port.dtype, tuple(port.shape), self._sizes["S"]) for port in self._ports}

    def _block(self, port: OutputPort, saved: SavedDeviceStates) -> _Block:
        shape, item = sized(port.shape, {**self._sizes, "B": saved.batch}), DTYPES[port.dtype].itemsize
        if "S" not in port.shape:
            return _Block(1, math.prod(shape) * item, math.prod(shape) * item)
        axis = port.shape.index("S")
        row = math.prod(shape[axis + 1 :]) * item
        return _Block(math.prod(shape[:axis]), row * shape[axis], row * saved.rows)

    def _pack(self, port: OutputPort, saved: SavedDeviceStates, target: int) -> None:
        block, source = self._block(port, saved), self._address(port, 0 if port.alias == "must" else self.side)
        if block.kept:
            self._device.copy(target, source, Rows(block.height, block.kept, block.kept, block.whole))

    def _unpack(self, port: OutputPort, saved: SavedDeviceStates, source: int) -> None:
        """Into what is read next, after `zero`."""
        block = self._block(port, saved)
        if block.kept:
            self._device.copy(self._address(port, 0), source, Rows(block.height, block.kept, block.whole, block.kept))

    @contextmanager
    def _staging(self, nbytes: int) -> Iterator[int]:
        arena = Arena(self._device, {"part": nbytes})
        try:
            yield arena.addresses["part"]
        finally:
            arena.free()

    def _address(self, port: OutputPort, side: int) -> int:
        return self._arena.addresses[f"{port.input}/{side}"]
