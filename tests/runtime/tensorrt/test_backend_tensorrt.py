"""The engine backend's host side, on a device in main memory and an engine that computes a known thing.

What only a card can show is not shown here: TensorRT itself, timing, real graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from elastic_runtime.driver.device import ALIGNMENT, Arena
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.session import Session
from elastic_runtime.tensorrt.backend_tensorrt import EngineBackend, Executors, check_bindings
from sum_engine import MemoryDevice, S, SumRig, T, V, expected_ids, generated_ids, sum_engines, sum_entry


@pytest.mark.parametrize("prompt", [[3], [1, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9]])
def test_prefill_and_decode_compute_the_sequence(rig: SumRig, prompt: list[int]) -> None:
    session = Session(rig.backend)
    assert generated_ids(session, [prompt], 9) == [expected_ids(prompt, 9)]


def test_decode_runs_as_a_graph_from_the_third_step_of_each_side_on(rig: SumRig) -> None:
    session = Session(rig.backend)
    session.prefill([[1, 2]])
    for step in range(8):
        session.decode([step])
    assert rig.device.launched == 6  # two plain runs, one a side of the states; then graphs
    assert [engine.runs for engine in rig.decode] == [4, 4]
    assert rig.backend.graphs == "by this runtime"
    session.reset(2)
    assert len(rig.device.dropped) == 2  # their shapes are others now


def test_a_new_sequence_of_the_same_batch_keeps_the_graphs_and_begins_at_zero(rig: SumRig) -> None:
    session = Session(rig.backend)
    assert generated_ids(session, [[1, 2, 3]], 8) == [
        expected_ids([1, 2, 3], 8)
    ]  # ends on the other side of the states
    for prompt in ([4, 4], [5]):
        before = rig.device.launched
        session.reset()
        assert not any(state.any() for state in rig.backend.states().values())
        assert generated_ids(session, [prompt], 6) == [expected_ids(prompt, 6)]
        assert rig.device.launched - before >= 5  # from the first step on
    assert rig.device.dropped == []


def test_prompts_of_all_lengths_are_run_in_a_few_of_them(rig: SumRig) -> None:
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
        assert generated_ids(session, [[3] * length], 3) == [expected_ids([3] * length, 3)]
    assert seen <= {1, T}


def test_a_stream_that_cannot_be_captured_runs_plainly(rig: SumRig) -> None:
    for engine in rig.decode:
        engine.can_capture = False
    assert generated_ids(Session(rig.backend), [[1, 2]], 8) == [expected_ids([1, 2], 8)]
    assert (rig.device.launched, rig.backend.graphs) == (0, "off")
    assert sum(engine.asked for engine in rig.decode) == 1
    assert rig.said == [
        "warning: decode steps run without CUDA graphs, which is slower: the engine cannot be recorded."
    ]


@pytest.mark.parametrize("replays", [True])
def test_steps_that_tensorrt_records_itself_are_not_recorded_here(rig: SumRig) -> None:
    session = Session(rig.backend)
    for prompt in ([1, 2], [3]):
        assert generated_ids(session, [prompt], 8) == [expected_ids(prompt, 8)]
        session.reset()
    assert (rig.device.launched, rig.backend.graphs, rig.said) == (0, "by TensorRT", [])


def test_what_decode_is_bound_to_never_changes(rig: SumRig) -> None:
    """A recorded step holds addresses, TensorRT's own too: it would record again at each change."""
    session = Session(rig.backend)
    for prompt in ([1, 2, 3], [4]):
        assert generated_ids(session, [prompt], 6) == [expected_ids(prompt, 6)]
        session.reset()
    assert [len(engine.bound) for engine in rig.decode] == [1, 1]


def test_a_card_that_refuses_a_graph_decodes_plainly_and_says_so_once(rig: SumRig) -> None:
    rig.device.refuses_graphs = True
    assert generated_ids(Session(rig.backend), [[1, 2]], 8) == [expected_ids([1, 2], 8)]
    assert rig.device.launched == 0
    assert rig.said == [
        "warning: decode steps run without CUDA graphs, which is slower: card 0: expected a graph, found none."
    ]


def test_a_ragged_batch_and_a_new_batch_size(rig: SumRig) -> None:
    session = Session(rig.backend, batch=3)
    prompts = [[1, 2, 3, 4, 5, 6], [7], [8, 9, 10]]
    assert generated_ids(session, prompts, 7) == [expected_ids(prompt, 7) for prompt in prompts]
    session.reset(1)
    assert generated_ids(session, [[4, 4]], 7) == [expected_ids([4, 4], 7)]
    session.reset(2)
    assert generated_ids(session, [[1], [2, 2, 2]], 3) == [expected_ids([1], 3), expected_ids([2, 2, 2], 3)]


def test_states_are_read_where_they_were_written(rig: SumRig) -> None:
    session = Session(rig.backend)
    for ids in ([1, 2, 3], [4], [5, 6], [7], [8]):
        session.prefill([ids])
    states = rig.backend.states()
    assert states["conv_state.0"].tolist() == [[7, 8]]
    assert states["ssm_state.0"].tolist() == [[36]]
    assert states["key_cache.0"][0, 0, :8, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    rig.backend.start(1)
    assert not any(state.any() for state in rig.backend.states().values())


def test_logits_outlive_the_backend(rig: SumRig) -> None:
    session = Session(rig.backend)
    logits = session.prefill([[1, 2, 3]])
    rig.backend.close()
    assert logits[0].argmax() == expected_ids([1, 2, 3], 1)[0]


def test_memory_is_counted_and_given_back(rig: SumRig) -> None:
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


def test_a_device_that_fails_gets_everything_back_all_the_same(rig: SumRig, monkeypatch: pytest.MonkeyPatch) -> None:
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
    device, entry = MemoryDevice(), sum_entry("must_not")
    first, second, prefill = sum_engines(device, entry)
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


def test_logits_of_every_token_give_the_last_real_one(rig: SumRig) -> None:
    every = tuple(replace(p, shape=("B", "T", V)) if p.name == "logits" else p for p in sum_entry("must").outputs)
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
    entry = sum_entry("must")
    names = {port.name for port in entry.inputs} | {port.name for port in entry.outputs}
    check_bindings(entry, {"w"}, names | {"w"})
    with pytest.raises(BuildError) as caught:
        check_bindings(entry, {"w"}, names | {"v"})
    assert str(caught.value) == (
        "x.engine: expected the 11 inputs and outputs of manifest and weights.json, found differing ['v', 'w']. "
        "Export the bundle again."
    )
