"""The engine backend: bindings, states that swap or share, the profile of each call, CUDA graphs for decode.

Everything here runs on any `Device` and any `Executors`; trt_engine.py makes the executors out of an engine.

Decode steps run as CUDA graphs, TensorRT's own where it has them: it records a step when the kernels made for its shape
are there. What is recorded from outside keeps the kernels of that moment for ever: where TensorRT has no graphs, a step
is recorded here, and safely so because the kernels of decode are compiled before its first run (`EAGER`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from elastic_runtime.backend import DeviceName, Floats, Ints, Origin, SavedStates, closed, not_of_this_backend
from elastic_runtime.driver.device import Arena, Device
from elastic_runtime.errors import BuildError
from elastic_runtime.format.manifest import EngineEntry, InputPort
from elastic_runtime.tensorrt.call_size import call_size
from elastic_runtime.tensorrt.device_states import DeviceStates, SavedDeviceStates, nbytes, sized

DECODE, PREFILL = 0, 1  # profiles: T = 1, and 1 <= T <= max_tokens
_TOKENS = ("input_ids", "position", "length")


class Executor(Protocol):
    """One execution context of an engine, bound to one of its profiles."""

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """The shape of a dynamic input, for the calls that follow."""

    def set_address(self, name: str, address: int) -> None:
        """Where an input is read or an output is written, for the calls that follow."""

    def enqueue(self, stream: int) -> None:
        """Ask for one run. Raises BuildError when it is refused."""

    def capturable(self, stream: int) -> bool:
        """Whether a run can be recorded."""


@dataclass(frozen=True)
class Executors:
    """The contexts of an engine; they never run at the same time.

    `decode` has one for each side of the states that swap, so that the addresses of a recorded step never change.
    `replays`: whether TensorRT records decode steps and replays them by itself.
    """

    decode: tuple[Executor, Executor]
    prefill: Executor
    replays: bool = False

    def all(self) -> tuple[Executor, ...]:
        """Every one of them."""
        return (*self.decode, self.prefill)


#: Who records decode steps: TensorRT, this backend, nobody, or it is not known before the first step.
Graphs = Literal["by TensorRT", "by this runtime", "off", "not asked for yet"]


class EngineBackend:
    """A `Backend` on a device.

    Args:
        entry: the engine's entry in the manifest.
        device: where; closed with the backend.
        executors: of the engine.
        weights: the weight inputs on the device; freed with the backend.
        batch: most rows.
        vocab_size: V.
        scratch: bytes of activation memory, for `memory`.
        origin: the bundle and budget of the engine.
        on_close: called when the backend is closed, before memory is given back.
        say: hears of an engine or a card that does not record decode steps.

    Raises:
        BuildError: device or executors fail; what was allocated here is free again, what was given is still open.
    """

    name = "tensorrt-rtx"
    device: DeviceName = "gpu"

    def __init__(
        self,
        entry: EngineEntry,
        device: Device,
        executors: Executors,
        weights: Arena,
        *,
        batch: int,
        vocab_size: int,
        scratch: int = 0,
        origin: Origin = Origin(),  # noqa: B008  # frozen
        on_close: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.max_tokens, self.max_context, self.max_batch = entry.max_tokens, entry.max_context, batch
        self.vocab_size, self._entry, self._device, self._executors = vocab_size, entry, device, executors
        self.origin = origin
        self._weights, self._scratch, self._on_close = weights, scratch, on_close
        self._logits_port = entry.logits
        self._as_long_as_the_call = [port for port in entry.inputs if "T" in port.shape]
        self._graphs: dict[int, Any] = {}
        self._warm: set[int] = set()
        self.graphs: Graphs = "not asked for yet"
        self._say, self._closed, self._batch = say, False, 0
        with ExitStack() as undo:
            self._states = DeviceStates(device, entry.outputs, batch=batch, context=entry.max_context)
            undo.callback(self._states.free)
            self._tokens = self._allocate_tokens()
            undo.callback(self._tokens.free)
            self._landing = device.host_buffer(nbytes(self._logits_port, self._most_sizes()))
            undo.callback(device.free_host_buffer, self._landing)
            self._bind_fixed()
            self.start(1)
            undo.pop_all()

    def start(self, batch: int) -> None:
        """Zero the states and fix the batch. Recorded graphs hold shapes and addresses: another batch drops them."""
        self._check_open()
        if batch != self._batch:
            self._drop_graphs()
        self._batch = batch
        self._states.zero()
        for executor in self._executors.all():
            self._set_shapes(executor, self._entry.inputs, 1)  # T = 1 is in both profiles

    def call_size(self, wanted: int, most: int) -> int:
        """One of a few lengths, so that TensorRT compiles kernels for no other (call_size.py)."""
        return call_size(wanted, most, self.max_tokens)

    def call(self, input_ids: Ints, position: Ints, length: Ints) -> Floats:
        """One call (`Backend.call`): profile 0 where T is 1, through a CUDA graph from the third step on.

        Ids [B, T], position [B], length [B] -> logits float32 [B, V].
        """
        self._check_open()
        tokens = input_ids.shape[1]
        for name, array in zip(_TOKENS, (input_ids, position, length), strict=True):
            self._device.upload(self._tokens.addresses[name], np.ascontiguousarray(array, np.int64))
        if tokens == 1:
            self._decode()
        else:
            self._set_shapes(self._executors.prefill, self._as_long_as_the_call, tokens)
            self._bind_states(self._executors.prefill, self._states.side)
            self._run(self._executors.prefill)
        self._states.swap()
        return self._read_logits(tokens, length)

    def save(self, rows: int, device: DeviceName) -> SavedDeviceStates:
        """See `Backend.save`."""
        self._check_open()
        return self._states.save(self._batch, rows, device)

    def load(self, saved: SavedStates) -> None:
        """See `Backend.load`."""
        self._check_open()
        if not isinstance(saved, SavedDeviceStates):
            raise not_of_this_backend("those of another")
        self._states.load(saved)

    def states(self) -> Mapping[str, npt.NDArray[Any]]:
        """A copy of every state."""
        self._check_open()
        return self._states.read(self._batch)

    def memory(self) -> Mapping[str, int]:
        """Bytes on the device."""
        return {"weights": self._weights.nbytes, "states": self._states.nbytes, "scratch": self._scratch}

    def close(self) -> None:
        """Give the device's memory back.

        A device that has failed fails every call from then on: each thing is given back all the same, and the error
        goes on after the last.
        """
        if self._closed:
            return
        self._closed = True
        with ExitStack() as steps:  # the last one first
            steps.callback(self._device.close)
            for held in (self._weights, self._tokens, self._states):
                steps.callback(held.free)
            steps.callback(self._device.free_host_buffer, self._landing)
            steps.callback(self._on_close)
            steps.callback(self._drop_graphs)
            steps.callback(self._device.synchronize)

    def _most_sizes(self) -> dict[str, int]:
        return {"B": self.max_batch, "T": self.max_tokens, "S": self.max_context}

    def _allocate_tokens(self) -> Arena:
        sizes = self._most_sizes()
        bound = {port.name: nbytes(port, sizes) for port in self._entry.inputs if port.name in _TOKENS}
        return Arena(self._device, bound | {self._logits_port.name: nbytes(self._logits_port, sizes)})

    def _bind_fixed(self) -> None:
        """Addresses that never change: weights, tokens, logits, and for decode those of the states."""
        fixed = {**self._weights.addresses, **self._tokens.addresses}
        for executor in self._executors.all():
            for name, address in fixed.items():
                executor.set_address(name, address)
        for side, executor in enumerate(self._executors.decode):
            self._bind_states(executor, side)

    def _bind_states(self, executor: Executor, side: int) -> None:
        for name, address in self._states.addresses(side).items():
            executor.set_address(name, address)

    def _set_shapes(self, executor: Executor, ports: Iterable[InputPort], tokens: int) -> None:
        sizes = {"B": self._batch, "T": tokens, "S": self.max_context}
        for port in ports:
            executor.set_shape(port.name, sized(port.shape, sizes))

    def _decode(self) -> None:
        """One step. States that swap give two sets of addresses, hence two contexts and two graphs.

        The first run of each is a plain one: it compiles kernels and allocates, which cannot be recorded.
        """
        side = self._states.side
        executor = self._executors.decode[side]
        if self.graphs == "not asked for yet":
            self.graphs = self._who_records(executor)
        if side in self._warm and side not in self._graphs and self.graphs == "by this runtime":
            self._record(side)
        if side in self._graphs:
            self._device.launch(self._graphs[side])
            return
        self._run(executor)
        self._warm.add(side)

    def _run(self, executor: Executor) -> None:
        """One plain run. TensorRT refuses every one on a lost card and blames the engine: the card is asked."""
        try:
            executor.enqueue(self._device.stream)
        except BuildError:
            self._device.synchronize()
            raise

    def _who_records(self, executor: Executor) -> Graphs:
        """Asked once, when shapes and addresses are set, on which the answer may depend."""
        try:
            reason = "" if executor.capturable(self._device.stream) else "the engine cannot be recorded"
        except BuildError as error:
            reason = str(error).removesuffix(".")
        if reason:
            self._say_slow(reason)
            return "off"
        return "by TensorRT" if self._executors.replays else "by this runtime"

    def _record(self, side: int) -> None:
        """Nothing runs while it is recorded, so a card that refuses runs the step plainly, and all that follow."""
        executor, stream = self._executors.decode[side], self._device.stream
        try:
            self._graphs[side] = self._device.capture(lambda: executor.enqueue(stream))
        except BuildError as error:
            self.graphs = "off"
            self._say_slow(str(error).removesuffix("."))

    def _say_slow(self, reason: str) -> None:
        self._say(f"warning: decode steps run without CUDA graphs, which is slower: {reason}.")

    def _check_open(self) -> None:
        if self._closed:
            raise closed(self.name)

    def _drop_graphs(self) -> None:
        graphs, self._graphs, self._warm = self._graphs, {}, set()
        with ExitStack() as steps:
            for graph in graphs.values():
                steps.callback(self._device.drop, graph)

    def _read_logits(self, tokens: int, length: Ints) -> Floats:
        shape = sized(self._logits_port.shape, {"B": self._batch, "T": tokens})
        count = math.prod(shape)
        landed = self._landing[: 4 * count].view(np.float32)
        self._device.download(self._tokens.addresses[self._logits_port.name], landed)
        # Copied: what a caller holds must outlive the page-locked memory, which `close` gives back.
        logits = landed.reshape(shape).copy()
        # An engine that gives every token's logits has padding among them; rows of length 0 may give any.
        return logits[np.arange(self._batch), np.maximum(length - 1, 0)] if logits.ndim == 3 else logits


def check_bindings(entry: EngineEntry, weights: set[str], found: set[str]) -> None:
    """Whether an engine's tensors are those that manifest and weights.json name. Raises BuildError."""
    wanted = {port.name for port in entry.inputs} | {port.name for port in entry.outputs} | weights
    if wanted != found:
        differing = sorted(wanted ^ found)
        raise BuildError(
            entry.file,
            expected=f"the {len(wanted)} inputs and outputs of manifest and weights.json",
            found=f"differing {differing[:4]}",
            todo="export the bundle again",
        )
