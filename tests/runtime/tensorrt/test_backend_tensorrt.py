"""The engine backend's host side, on a device in main memory and an engine that computes a known thing.

What only a card can show is not shown here: TensorRT itself, timing, real graphs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.blocks import Block
from elastic_runtime.driver.device import ALIGNMENT, Arena, Rows
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.manifest import EngineEntry, InputPort, OutputPort
from elastic_runtime.format.weights import StoredSlice, WeightInput, WeightRecipe, iter_weights
from elastic_runtime.generation import Settings, generate
from elastic_runtime.session import Session
from elastic_runtime.tensorrt.backend_tensorrt import DECODE, PREFILL, EngineBackend, Executors, check_bindings
from elastic_runtime.tensorrt.device_weights import upload_weights

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

    def upload_blocks(self, address: int, source: np.ndarray, blocks: Sequence[Block]) -> None:
        for block in blocks:
            for row in range(block.height):
                at = block.source + row * block.source_pitch
                piece = source[at : at + block.width]
                self.view(address + block.target + row * block.target_pitch, block.width)[:] = piece

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


def _entry(ssm_alias: str) -> EngineEntry:
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
class Rig:
    device: MemoryDevice
    decode: tuple[SumEngine, SumEngine]
    prefill: SumEngine
    backend: EngineBackend
    closed: list[str]
    said: list[str]


def _engines(device: MemoryDevice, entry: EngineEntry) -> tuple[SumEngine, SumEngine, SumEngine]:
    return SumEngine(device, entry, DECODE), SumEngine(device, entry, DECODE), SumEngine(device, entry, PREFILL)


@pytest.fixture(params=["must", "must_not"])
def alias(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def replays() -> bool:
    """Whether TensorRT records decode steps itself."""
    return False


@pytest.fixture
def rig(alias: str, replays: bool) -> Iterator[Rig]:
    device, entry, closed, said = MemoryDevice(), _entry(alias), list[str](), list[str]()
    first, second, prefill = _engines(device, entry)
    weights = Arena(device, {"w": 4})
    device.upload(weights.addresses["w"], np.array([5], np.int32))
    backend = EngineBackend(
        entry,
        device,
        Executors((first, second), prefill, replays),
        weights,
        batch=3,
        vocab_size=V,
        scratch=9,
        on_close=lambda: closed.append("x"),
        say=said.append,
    )
    yield Rig(device, (first, second), prefill, backend, closed, said)
    if not device.closed:
        backend.close()
    assert (device.blocks, device.host) == ({}, 0), "memory was not given back"


def _expected(prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append((sum(ids) + 5 + sum(ids[-2:])) % V)
    return ids[len(prompt) :]


def _generated(session: Session, prompts: list[list[int]], count: int) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in prompts]
    for piece in generate(session, prompts, Settings(max_new=count)):
        assert piece.id is not None
        rows[piece.row].append(piece.id)
    return rows


@pytest.mark.parametrize("prompt", [[3], [1, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9]])
def test_prefill_and_decode_compute_the_sequence(rig: Rig, prompt: list[int]) -> None:
    session = Session(rig.backend)
    assert _generated(session, [prompt], 9) == [_expected(prompt, 9)]


def test_decode_runs_as_a_graph_from_the_third_step_of_each_side_on(rig: Rig) -> None:
    session = Session(rig.backend)
    session.prefill([[1, 2]])
    for step in range(8):
        session.decode([step])
    assert rig.device.launched == 6  # two plain runs, one a side of the states; then graphs
    assert [engine.runs for engine in rig.decode] == [4, 4]
    assert rig.backend.graphs == "by this runtime"
    session.reset(2)
    assert len(rig.device.dropped) == 2  # their shapes are others now


def test_a_new_sequence_of_the_same_batch_keeps_the_graphs_and_begins_at_zero(rig: Rig) -> None:
    session = Session(rig.backend)
    assert _generated(session, [[1, 2, 3]], 8) == [_expected([1, 2, 3], 8)]  # ends on the other side of the states
    for prompt in ([4, 4], [5]):
        before = rig.device.launched
        session.reset()
        assert not any(state.any() for state in rig.backend.states().values())
        assert _generated(session, [prompt], 6) == [_expected(prompt, 6)]
        assert rig.device.launched - before >= 5  # from the first step on
    assert rig.device.dropped == []


def test_prompts_of_all_lengths_are_run_in_a_few_of_them(rig: Rig) -> None:
    """Any other length would have TensorRT compile kernels for it."""
    session, seen = Session(rig.backend), set()
    set_shape = rig.prefill.set_shape

    def noted(name: str, shape: tuple[int, ...]) -> None:
        if name == "input_ids":
            seen.add(shape[1])
        set_shape(name, shape)

    rig.prefill.set_shape = noted  # type: ignore[method-assign]
    for length in range(1, 14):
        session.reset()
        assert _generated(session, [[3] * length], 3) == [_expected([3] * length, 3)]
    assert seen <= {1, T}


def test_a_stream_that_cannot_be_captured_runs_plainly(rig: Rig) -> None:
    for engine in rig.decode:
        engine.can_capture = False
    assert _generated(Session(rig.backend), [[1, 2]], 8) == [_expected([1, 2], 8)]
    assert (rig.device.launched, rig.backend.graphs) == (0, "off")
    assert sum(engine.asked for engine in rig.decode) == 1
    assert rig.said == [
        "warning: decode steps run without CUDA graphs, which is slower: the engine cannot be recorded."
    ]


@pytest.mark.parametrize("replays", [True])
def test_steps_that_tensorrt_records_itself_are_not_recorded_here(rig: Rig) -> None:
    session = Session(rig.backend)
    for prompt in ([1, 2], [3]):
        assert _generated(session, [prompt], 8) == [_expected(prompt, 8)]
        session.reset()
    assert (rig.device.launched, rig.backend.graphs, rig.said) == (0, "by TensorRT", [])


def test_what_decode_is_bound_to_never_changes(rig: Rig) -> None:
    """A recorded step holds addresses, TensorRT's own too: it would record again at each change."""
    session = Session(rig.backend)
    for prompt in ([1, 2, 3], [4]):
        assert _generated(session, [prompt], 6) == [_expected(prompt, 6)]
        session.reset()
    assert [len(engine.bound) for engine in rig.decode] == [1, 1]


def test_a_card_that_refuses_a_graph_decodes_plainly_and_says_so_once(rig: Rig) -> None:
    rig.device.refuses_graphs = True
    assert _generated(Session(rig.backend), [[1, 2]], 8) == [_expected([1, 2], 8)]
    assert rig.device.launched == 0
    assert rig.said == [
        "warning: decode steps run without CUDA graphs, which is slower: card 0: expected a graph, found none."
    ]


def test_a_ragged_batch_and_a_new_batch_size(rig: Rig) -> None:
    session = Session(rig.backend, batch=3)
    prompts = [[1, 2, 3, 4, 5, 6], [7], [8, 9, 10]]
    assert _generated(session, prompts, 7) == [_expected(prompt, 7) for prompt in prompts]
    session.reset(1)
    assert _generated(session, [[4, 4]], 7) == [_expected([4, 4], 7)]
    session.reset(2)
    assert _generated(session, [[1], [2, 2, 2]], 3) == [_expected([1], 3), _expected([2, 2, 2], 3)]


def test_states_are_read_where_they_were_written(rig: Rig) -> None:
    session = Session(rig.backend)
    for ids in ([1, 2, 3], [4], [5, 6], [7], [8]):
        session.prefill([ids])
    states = rig.backend.states()
    assert states["conv_state.0"].tolist() == [[7, 8]]
    assert states["ssm_state.0"].tolist() == [[36]]
    assert states["key_cache.0"][0, 0, :8, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    rig.backend.start(1)
    assert not any(state.any() for state in rig.backend.states().values())


def test_logits_outlive_the_backend(rig: Rig) -> None:
    session = Session(rig.backend)
    logits = session.prefill([[1, 2, 3]])
    rig.backend.close()
    assert logits[0].argmax() == _expected([1, 2, 3], 1)[0]


def test_memory_is_counted_and_given_back(rig: Rig) -> None:
    held = rig.backend.memory()
    assert (held["weights"], held["scratch"]) == (ALIGNMENT, 9)
    assert held["states"] >= 3 * 4 * (2 + 2 + 1 + S)
    rig.backend.close()
    assert (rig.closed, rig.device.closed, rig.device.blocks) == (["x"], 1, {})
    rig.backend.close()  # again: nothing happens
    assert (rig.closed, rig.device.closed) == (["x"], 1)
    with pytest.raises(InputError) as caught:
        rig.backend.start(1)
    assert str(caught.value) == (
        "tensorrt-rtx backend: expected an open one, found one that was closed. Open a new session."
    )


def test_a_device_that_fails_gets_everything_back_all_the_same(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an error that CUDA keeps: every call fails from then on, and takes back what it is given."""
    session = Session(rig.backend)
    for step in range(8):
        session.decode([step])
    dropped, free, drop, close = rig.device.dropped, rig.device.free, rig.device.drop, rig.device.close

    def failing(work: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            work(*arguments)
            raise BuildError("card 0", expected="luck", found="CUDA_ERROR_ILLEGAL_ADDRESS (700)")

        return call

    works = {"synchronize": lambda: None, "free": free, "drop": drop, "close": close}
    for name, work in works.items():
        monkeypatch.setattr(rig.device, name, failing(work))
    monkeypatch.setattr(rig.backend, "_on_close", failing(lambda: rig.closed.append("x")))
    with pytest.raises(BuildError, match="ILLEGAL_ADDRESS"):
        session.close()
    assert (len(dropped), rig.closed, rig.device.blocks, rig.device.closed) == (2, ["x"], {}, 1)
    session.close()  # again: nothing happens
    assert rig.device.closed == 1


@pytest.mark.parametrize("fails", ["set_address", "set_shape", "allocate", "zero"])
def test_a_backend_that_does_not_come_to_be_keeps_no_memory(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device, entry = MemoryDevice(), _entry("must_not")
    first, second, prefill = _engines(device, entry)
    weights = Arena(device, {"w": 4})
    given = dict(device.blocks)
    allocate = device.allocate

    def refuse(*arguments: Any) -> int:
        if fails == "allocate" and len(device.blocks) == len(given):
            return allocate(*arguments)  # the states; not the tokens
        raise BuildError("card 0", expected="luck", found="none")

    monkeypatch.setattr(device if hasattr(device, fails) else prefill, fails, refuse)
    with pytest.raises(BuildError, match="luck"):
        EngineBackend(entry, device, Executors((first, second), prefill), weights, batch=3, vocab_size=V)
    assert (device.blocks, device.closed, device.host) == (given, 0, 0)


def test_logits_of_every_token_give_the_last_real_one(rig: Rig) -> None:
    every = tuple(replace(p, shape=("B", "T", V)) if p.name == "logits" else p for p in _entry("must").outputs)
    port = next(p for p in every if p.name == "logits")
    rig.backend._logits_port = port
    read = rig.device.download
    rig.device.download = lambda address, array: array.__setitem__(  # type: ignore[method-assign]
        ..., np.arange(array.size, dtype=np.float32).reshape(array.shape)
    )
    rig.backend._landing = np.zeros(4 * 3 * V, np.uint8)  # an engine of such a port would have asked for it
    found = rig.backend._read_logits(3, np.array([2]))
    rig.device.download = read  # type: ignore[method-assign]
    assert found[0].tolist() == [float(V + i) for i in range(V)]


def test_an_engine_with_other_tensors_is_refused() -> None:
    entry = _entry("must")
    names = {port.name for port in entry.inputs} | {port.name for port in entry.outputs}
    check_bindings(entry, {"w"}, names | {"w"})
    with pytest.raises(BuildError) as caught:
        check_bindings(entry, {"w"}, names | {"v"})
    assert str(caught.value) == (
        "x.engine: expected the 11 inputs and outputs of manifest and weights.json, found differing ['v', 'w']. "
        "Export the bundle again."
    )


def test_weights_arrive_as_slicing_them_gives(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    budget = bundle.budget("small")
    assert budget.weights
    recipe, folder, device = bundle.recipe(budget), (demo_bundle / budget.weights).parent, MemoryDevice()
    files: dict[Any, Any] = {}
    arena = upload_weights(device, recipe, folder, files=files)
    assert len(files) == 2
    assert device.finished
    for name, array in iter_weights(recipe, folder):
        assert arena.addresses[name] % ALIGNMENT == 0
        found = device.view(arena.addresses[name], array.nbytes)
        assert found.tobytes() == array.tobytes(), name
        assert array.dtype in (np.float32, ml_dtypes.bfloat16)
    assert arena.nbytes < 1.02 * recipe.nbytes + ALIGNMENT * len(recipe.inputs)
    arena.free()
    assert not device.blocks


@pytest.mark.parametrize("axis", [0, 1])
def test_the_parts_of_a_weight_arrive_behind_each_other(axis: int, tmp_path: Path) -> None:
    np.arange(64, dtype=np.float32).tofile(tmp_path / "a.bin")
    np.arange(100, 164, dtype=np.float32).tofile(tmp_path / "b.bin")
    parts = tuple(
        StoredSlice(file, 0, "fp32", (8, 8), (3, 3), (((0, 2), (5, 1)), ((1, 3),))) for file in ("a.bin", "b.bin")
    )
    recipe, device = WeightRecipe((WeightInput("w", parts, axis),)), MemoryDevice()
    arena = upload_weights(device, recipe, tmp_path)
    [(name, wanted)] = iter_weights(recipe, tmp_path)
    assert wanted.shape == ((6, 3) if axis == 0 else (3, 6))
    assert device.view(arena.addresses[name], wanted.nbytes).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("steps", [3, 4])  # the states that swap lie on either side
def test_a_restored_session_goes_on_as_if_it_had_never_left(rig: Rig, device: Any, steps: int) -> None:
    session = Session(rig.backend, batch=2)
    prompts = [[1, 2, 3], [4, 5]]
    first = _generated(session, prompts, steps)
    saved = session.snapshot(device=device)
    assert saved.device == (device or "gpu")
    states = {name: state.copy() for name, state in rig.backend.states().items()}
    logits = session.logits.copy()
    wanted = _generated(session, [[], []], 4)
    assert [[*a, *b] for a, b in zip(first, wanted, strict=True)] == [_expected(p, steps + 4) for p in prompts]
    for _ in range(2):  # it is not used up
        session.reset()
        session.prefill([[9] * 7, [8] * 9])
        session.restore(saved)
        rows = max(len(tokens) for tokens in session.tokens)
        for name, state in rig.backend.states().items():
            live = state[:, :rows] if "cache" in name else state
            assert np.array_equal(live, states[name][:, :rows] if "cache" in name else states[name]), name
            assert "cache" not in name or not state[:, rows:].any()
        assert np.array_equal(session.logits, logits)
        assert _generated(session, [[], []], 4) == wanted


def test_a_snapshot_copies_the_rows_that_are_used_and_no_more(rig: Rig) -> None:
    session = Session(rig.backend, batch=2)
    session.prefill([[1, 2, 3], [4]])
    before = rig.device.copied
    saved = session.snapshot()
    item = 4
    states = sum(state.nbytes for name, state in rig.backend.states().items() if "cache" not in name)
    assert rig.device.copied - before == states + 2 * 3 * item  # of S = 20 rows each
    assert saved.nbytes - saved.logits.nbytes <= states + 2 * 3 * item + 3 * ALIGNMENT
    held = len(rig.device.blocks)
    saved.close()
    assert len(rig.device.blocks) == held - 1
    with pytest.raises(
        InputError, match="snapshot: expected states that this backend saved, or one like it, found none"
    ):
        session.restore(saved)
    assert session.tokens == [[1, 2, 3], [4]]


def test_a_snapshot_on_the_card_goes_with_the_last_reference_or_the_session(rig: Rig) -> None:
    session = Session(rig.backend)
    session.prefill([[1, 2, 3]])
    held = len(rig.device.blocks)
    saved = session.snapshot()
    assert len(rig.device.blocks) == held + 1
    del saved
    assert len(rig.device.blocks) == held
    kept, there = session.snapshot(), session.snapshot(device="cpu")
    assert len(rig.device.blocks) == held + 1
    session.close()
    assert rig.device.blocks == {}
    with pytest.raises(InputError, match="tensorrt-rtx backend: expected an open one, found one that was closed"):
        session.snapshot()
    for closed in (kept, there):
        with pytest.raises(InputError, match="backend: expected an open one, found one that was closed"):
            session.restore(closed)


def test_graphs_outlive_a_restored_snapshot(rig: Rig) -> None:
    session = Session(rig.backend)
    session.prefill([[1, 2]])
    for step in range(6):
        session.decode([step])
    saved, launched = session.snapshot(), rig.device.launched
    session.restore(saved)
    session.decode([1])
    assert rig.device.launched == launched + 1
    assert rig.device.dropped == []
