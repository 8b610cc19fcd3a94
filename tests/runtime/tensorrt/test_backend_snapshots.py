"""Snapshots of a session on an engine: what is copied, and what goes on after one is restored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elastic_runtime.driver.device import ALIGNMENT
from elastic_runtime.errors import InputError
from elastic_runtime.session import Session
from sum_engine import SumRig, expected_ids, generated_ids


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("steps", [3, 4])  # the states that swap lie on either side
def test_a_restored_session_goes_on_as_if_it_had_never_left(rig: SumRig, device: Any, steps: int) -> None:
    session = Session(rig.backend, batch=2)
    prompts = [[1, 2, 3], [4, 5]]
    first = generated_ids(session, prompts, steps)
    saved = session.snapshot(device=device)
    assert saved.device == (device or "gpu")
    states = {name: state.copy() for name, state in rig.backend.states().items()}
    logits = session.logits.copy()
    wanted = generated_ids(session, [[], []], 4)
    assert [[*a, *b] for a, b in zip(first, wanted, strict=True)] == [expected_ids(p, steps + 4) for p in prompts]
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
        assert generated_ids(session, [[], []], 4) == wanted


def test_a_snapshot_copies_the_rows_that_are_used_and_no_more(rig: SumRig) -> None:
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


def test_a_snapshot_on_the_card_goes_with_the_last_reference_or_the_session(rig: SumRig) -> None:
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


def test_graphs_outlive_a_restored_snapshot(rig: SumRig) -> None:
    session = Session(rig.backend)
    session.prefill([[1, 2]])
    for step in range(6):
        session.decode([step])
    saved, launched = session.snapshot(), rig.device.launched
    session.restore(saved)
    session.decode([1])
    assert rig.device.launched == launched + 1
    assert rig.device.dropped == []
