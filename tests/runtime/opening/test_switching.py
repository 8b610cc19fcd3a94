"""Switching budgets: files stay mapped, the transcript is fed again, and what fails leaves the old session."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.opening import LostError, Opener, candidates, loading
from elastic_runtime.session import Session
from elastic_runtime.session_request import Request


def test_switching_keeps_files_mapped_and_feeds_the_transcript_again(bundle: Bundle) -> None:
    opener = Opener(bundle, Request(budget="small", backend="onnxruntime", context=128, batch=2, threads=1))
    session = opener.open()
    rows = [[1, 2, 3, 4, 5], [9, 8, 7]]
    session.prefill(rows)
    mapped = dict(opener._loader.files)
    assert len(mapped) == 2
    session, logits, cost = opener.switch(session, "medium")
    assert session.tokens == rows
    assert (cost.budget, cost.tokens) == ("medium", 8)
    assert cost.open_seconds > 0 < cost.prefill_seconds
    assert {path: id(file) for path, file in opener._loader.files.items()} == {p: id(f) for p, f in mapped.items()}
    session.reset()
    np.testing.assert_array_equal(session.prefill(rows), logits)
    with pytest.raises(InputError, match="budget 'huge'"):
        opener.switch(session, "huge")
    session.decode([1, 1])  # the old one still lives
    session.close()


def _talking(opener: Opener, rows: list[list[int]]) -> Session:
    session = opener.open()
    session.prefill(rows)
    return session


def test_a_switch_that_cannot_be_is_refused_before_the_old_session_closes(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = Opener(bundle, Request(budget="small", backend="onnxruntime", context=16, threads=1))
    session = _talking(opener, [[1, 2, 3]])
    closed: list[int] = []
    close = session.backend.close
    session.backend.close = lambda: (closed.append(1), close())  # type: ignore[method-assign,func-returns-value,assignment]
    monkeypatch.setattr(candidates, "free_ram", lambda: 1 << 20)
    with pytest.raises(BuildError, match="budget 'large' on the CPU: expected"):
        opener.switch(session, "large")
    assert not closed
    assert opener.budget == bundle.budget("small")
    session.decode([1])
    session.close()


@pytest.mark.usefixtures("large_fails")
def test_a_switch_that_fails_opens_the_old_budget_again(bundle: Bundle) -> None:
    opener = Opener(bundle, Request(budget="small", backend="onnxruntime", context=64, batch=2, threads=1))
    session = _talking(opener, [[1, 2, 3], [4, 5]])
    expected = session.decode([6, 7]).copy()
    with pytest.raises(BuildError, match="large: expected luck, found none"):
        opener.switch(session, "large")
    assert opener.budget == bundle.budget("small")
    assert session.tokens == [[1, 2, 3, 6], [4, 5, 7]]
    again = session.decode([8, 8])
    session.reset(2)
    np.testing.assert_allclose(session.prefill([[1, 2, 3, 6], [4, 5, 7]]), expected, atol=1e-4)
    np.testing.assert_allclose(session.decode([8, 8]), again, atol=1e-4)
    session.close()


def test_a_switch_that_leaves_no_session_says_both_reasons(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opener = Opener(bundle, Request(budget="small", backend="onnxruntime", context=64, threads=1))
    session = _talking(opener, [[1, 2, 3]])

    def failing(bundle: Bundle, budget: Any, **rest: Any) -> Any:
        raise BuildError(budget.name, expected="luck", found="none")

    monkeypatch.setattr(loading, "open_onnx", failing)
    with pytest.raises(LostError) as caught:
        opener.switch(session, "large")
    assert "expected budget 'small' to open again, found small: expected luck" in str(caught.value)
    assert "the switch failed of: large: expected luck" in str(caught.value)


def test_a_switch_keeps_room_for_the_transcript(bundle: Bundle) -> None:
    opener = Opener(bundle, Request(budget="small", backend="onnxruntime", context=8, threads=1))
    session = _talking(opener, [[1] * 8])
    session, _, cost = opener.switch(session, "medium")
    assert (session.backend.max_context, cost.tokens) == (9, 8)
    session.decode([1])
    session.close()


def test_a_session_that_holds_nothing_yet_switches(bundle: Bundle) -> None:
    opener = Opener(bundle, Request(budget="small", backend="onnxruntime", context=8, threads=1))
    session, logits, cost = opener.switch(opener.open(), "medium")
    assert (cost.tokens, logits.any(), opener.budget) == (0, False, bundle.budget("medium"))
    session.close()
