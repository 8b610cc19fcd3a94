"""Stages that call a backend stay within its context and its calls, however small they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.results import Found
from elastic_runtime.bringup.stages import calls, context
from elastic_runtime.bringup.stages.speed import _decode, _prefill


class _Small:
    """A backend of a tiny context: a position beyond it is a write beyond the caches."""

    vocab_size = 11
    max_batch = 1
    graphs = "none"

    def __init__(self, max_context: int, max_tokens: int) -> None:
        self.max_context, self.max_tokens = max_context, max_tokens
        self.calls = 0

    def start(self, batch: int) -> None:
        assert batch == 1

    def call(self, ids: Any, position: Any, length: Any) -> Any:
        assert 1 <= length[0] <= self.max_tokens
        assert 0 <= position[0] <= self.max_context - length[0]
        self.calls += 1
        return np.zeros((1, self.vocab_size), np.float32)

    def call_size(self, wanted: int, most: int) -> int:
        return min(wanted, most, self.max_tokens)

    def memory(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


SIZES = [(2, 1), (20, 512), (64, 16), (65, 65), (100, 64), (300, 300), (4096, 512), (16384, 1024)]


@pytest.mark.parametrize(("max_context", "max_tokens"), [(1, 1), *SIZES])
@pytest.mark.parametrize("stage", [context.run, calls.run])
def test_no_stage_leaves_a_small_context(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: Callable[[Place], Found],
    max_context: int,
    max_tokens: int,
) -> None:
    backend = _Small(max_context, max_tokens)
    monkeypatch.setattr(Place, "backend", lambda *_, **__: backend)
    stage(Place(tmp_path, tmp_path))
    assert backend.calls


@pytest.mark.parametrize(
    ("max_context", "starts"),
    [(1, ["0"]), (256, ["0"]), (300, ["0", "44"]), (4096, ["0", "3840"]), (16384, ["0", "4096", "16128"])],
)
def test_steps_are_timed_at_the_beginning_at_4k_and_at_the_end(max_context: int, starts: list[str]) -> None:
    found = _decode(_Small(max_context, 1), [])  # type: ignore[arg-type]
    assert list(found) == starts
    assert {times["count"] for times in found.values()} == {min(256, max_context)}


@pytest.mark.parametrize(
    ("max_context", "max_tokens", "lengths"),
    [(1, 1, []), (64, 1024, ["16", "64"]), (4096, 256, ["16", "64", "256"]), (4096, 1024, ["16", "64", "256", "1024"])],
)
def test_every_length_of_a_prefill_is_timed_the_first_time_and_later(
    max_context: int, max_tokens: int, lengths: list[str]
) -> None:
    found = _prefill(_Small(max_context, max_tokens))  # type: ignore[arg-type]
    assert list(found) == lengths
    assert {len(times) for times in found.values()} <= {3}
