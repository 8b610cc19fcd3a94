"""A device in main memory, and an engine on it that computes a known thing: sums of the ids so far."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elastic_runtime.driver.blocks import Block
from elastic_runtime.driver.device import ALIGNMENT, Rows
from elastic_runtime.errors import BuildError
from elastic_runtime.format.manifest import EngineEntry, InputPort, OutputPort
from elastic_runtime.format.slicing import Read
from elastic_runtime.generation import Settings, generate
from elastic_runtime.session import Session
from elastic_runtime.tensorrt.backend_tensorrt import DECODE, PREFILL, EngineBackend

V, S, T = 11, 20, 4


class MemoryDevice:
    """A `Device` in main memory. It knows what is allocated, and refuses every access outside of it."""

    stream = 77

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}
        self.recording: list[Callable[[], None]] | None = None
        self.launched = self.closed = self.host = 0
        self.finished = False
        self.copied = 0
        self.refuses_graphs = False
        self.dropped: list[Any] = []

    def allocate(self, nbytes: int) -> int:
        raw = np.full(nbytes + ALIGNMENT, 0xAB, np.uint8)  # unspecified memory is not zero
        address = -(-raw.ctypes.data // ALIGNMENT) * ALIGNMENT
        self.blocks[address] = (raw, nbytes)
        return address

    def free(self, address: int) -> None:
        del self.blocks[address]

    def view(self, address: int, nbytes: int) -> np.ndarray:
        owner = [a for a, (_, size) in self.blocks.items() if a <= address and address + nbytes <= a + size]
        assert owner, f"{nbytes} bytes at {address} are not allocated"
        return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))

    def zero(self, address: int, nbytes: int) -> None:
        self.view(address, nbytes)[:] = 0

    def upload(self, address: int, array: np.ndarray) -> None:
        assert array.flags.c_contiguous
        self.view(address, array.nbytes)[:] = array.reshape(-1).view(np.uint8)

    def copy(self, target: int, source: int, rows: Rows) -> None:
        for row in range(rows.height):
            piece = self.view(source + row * rows.source_pitch, rows.width)
            self.view(target + row * rows.target_pitch, rows.width)[:] = piece
        self.copied += rows.height * rows.width

    def upload_blocks(self, address: int, read: Read, blocks: Sequence[Block]) -> None:
        for block in blocks:
            for row in range(block.height):
                piece = self.view(address + block.target + row * block.target_pitch, block.width)
                read(block.source + row * block.source_pitch, piece)

    def finish_uploads(self) -> None:
        self.finished = True

    def host_buffer(self, nbytes: int) -> np.ndarray:
        self.host += 1
        return np.full(nbytes, 0xAB, np.uint8)

    def free_host_buffer(self, buffer: np.ndarray) -> None:
        self.host -= 1
        buffer[:] = 0xCD  # whoever reads it afterwards sees that

    def download(self, address: int, array: np.ndarray) -> None:
        array.reshape(-1).view(np.uint8)[:] = self.view(address, array.nbytes)

    def synchronize(self) -> None:
        pass

    def capture(self, work: Callable[[], None]) -> Any:
        if self.refuses_graphs:
            raise BuildError("card 0", expected="a graph", found="none")
        self.recording = []
        work()
        recorded, self.recording = self.recording, None
        return recorded

    def launch(self, graph: Any) -> None:
        self.launched += 1
        for work in graph:
            work()

    def drop(self, graph: Any) -> None:
        self.dropped.append(graph)

    def close(self) -> None:
        self.closed += 1


@dataclass
class SumEngine:
    """Reads and writes device memory through its bindings, as an engine would.

    conv (swaps): the last two tokens of a row. ssm: the sum of its tokens. cache (shared): its tokens.
    The next token is (sum + weight + last two) mod V. It checks what a kernel relies on.
    """

    device: MemoryDevice
    entry: EngineEntry
    profile: int
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    can_capture: bool = True
    asked: int = 0
    bound: set[tuple[int, ...]] = field(default_factory=set)  # sets of addresses that it ran with

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shapes[name] = shape

    def set_address(self, name: str, address: int) -> None:
        assert address % ALIGNMENT == 0
        self.addresses[name] = address

    def capturable(self, stream: int) -> bool:
        self.asked += 1
        return self.can_capture

    def enqueue(self, stream: int) -> None:
        assert stream == self.device.stream
        self.bound.add(tuple(self.addresses.values()))
        assert set(self.shapes) == {port.name for port in self.entry.inputs}
        bound, shapes = dict(self.addresses), dict(self.shapes)
        work = lambda: self._run(bound, shapes)  # noqa: E731  # a kernel launch keeps its arguments
        if self.device.recording is not None:
            self.device.recording.append(work)
        else:
            work()

    def _run(self, bound: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        self.runs += 1
        for port in self.entry.outputs:
            if port.alias:
                assert (bound[port.name] == bound[str(port.input)]) == (port.alias == "must"), port.name
        ids, position, length = (self._array(bound, shapes, n, np.int64) for n in ("input_ids", "position", "length"))
        batch, tokens = ids.shape
        assert (tokens == 1) == (self.profile == DECODE)
        conv, ssm = (
            self._array(bound, shapes, "conv_state.0", np.float32),
            self._array(bound, shapes, "ssm_state.0", np.float32),
        )
        new_conv, new_ssm = conv.copy(), ssm.copy()
        cache = self._array(bound, shapes, "key_cache.0", np.float32)
        weight = self.device.view(bound["w"], 4).view(np.int32)[0]
        logits = np.zeros((batch, V), np.float32)
        for row in range(batch):
            for i in range(int(length[row])):
                new_conv[row] = [new_conv[row, 1], ids[row, i]]
                new_ssm[row] += ids[row, i]
            cache[row, 0, position[row] : position[row] + tokens, 0] = ids[row]  # the padded ones too
            seen = cache[row, 0, : position[row] + length[row], 0]
            assert seen.sum() == new_ssm[row, 0], "a cache row was lost"
            logits[row, int(new_ssm[row, 0] + weight + new_conv[row].sum()) % V] = 1
        self._write(bound["conv_state_out.0"], new_conv)
        self._write(bound["ssm_state_out.0"], new_ssm)
        self._write(bound["logits"], logits)

    def _array(self, bound: dict[str, int], shapes: dict[str, Any], name: str, dtype: Any) -> np.ndarray:
        shape = shapes[name]
        return self.device.view(bound[name], int(np.prod(shape)) * np.dtype(dtype).itemsize).view(dtype).reshape(shape)

    def _write(self, address: int, array: np.ndarray) -> None:
        self.device.upload(address, np.ascontiguousarray(array))


def sum_entry(ssm_alias: str) -> EngineEntry:
    f = "float32"
    inputs = (
        InputPort("input_ids", "int64", ("B", "T")),
        InputPort("position", "int64", ("B",)),
        InputPort("length", "int64", ("B",)),
        InputPort("conv_state.0", f, ("B", 2)),
        InputPort("ssm_state.0", f, ("B", 1)),
        InputPort("key_cache.0", f, ("B", 1, "S", 1)),
    )
    outputs = (
        OutputPort("logits", f, ("B", V), None, None),
        OutputPort("conv_state_out.0", f, ("B", 2), "conv_state.0", "must_not"),
        OutputPort("ssm_state_out.0", f, ("B", 1), "ssm_state.0", ssm_alias),  # type: ignore[arg-type]
        OutputPort("key_cache_out.0", f, ("B", 1, "S", 1), "key_cache.0", "must"),
    )
    entry = EngineEntry.__new__(EngineEntry)
    values = {
        "file": "x.engine",
        "inputs": inputs,
        "outputs": outputs,
        "max_tokens": T,
        "max_context": S,
        "max_batch": 3,
    }
    for name, value in values.items():
        object.__setattr__(entry, name, value)
    return entry


@dataclass
class SumRig:
    device: MemoryDevice
    decode: tuple[SumEngine, SumEngine]
    prefill: SumEngine
    backend: EngineBackend
    closed: list[str]
    said: list[str]


def sum_engines(device: MemoryDevice, entry: EngineEntry) -> tuple[SumEngine, SumEngine, SumEngine]:
    return SumEngine(device, entry, DECODE), SumEngine(device, entry, DECODE), SumEngine(device, entry, PREFILL)


def expected_ids(prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append((sum(ids) + 5 + sum(ids[-2:])) % V)
    return ids[len(prompt) :]


def generated_ids(session: Session, prompts: list[list[int]], count: int) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in prompts]
    for piece in generate(session, prompts, Settings(max_new=count)):
        assert piece.id is not None
        rows[piece.row].append(piece.id)
    return rows
