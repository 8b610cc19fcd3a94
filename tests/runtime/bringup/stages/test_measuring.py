"""The most that a card's memory held while something ran."""

from __future__ import annotations

import threading

import pytest

from elastic_runtime.bringup.stages import measuring
from elastic_runtime.bringup.stages.measuring import Watch, spread
from elastic_runtime.driver.free_memory import Card


def test_the_peak_counts_and_not_what_is_left_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    free, seen = iter([100, 90, 30, 95]), threading.Event()

    def look() -> Card:
        value = next(free, 0)
        if not value:
            seen.set()
        return Card("a card", "12.0", 200, value or 95)

    monkeypatch.setattr(measuring, "find_card", look)
    monkeypatch.setattr(measuring, "_EVERY", 0.001)
    with Watch() as watch:
        assert seen.wait(30)
    assert watch.taken == 70


def test_what_is_short_is_looked_at_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [100, 60]
    monkeypatch.setattr(measuring, "find_card", lambda: Card("a card", "12.0", 200, free.pop(0)))
    monkeypatch.setattr(measuring, "_EVERY", 60)
    with Watch() as watch:
        watch.look()
    assert watch.taken == 40


def test_memory_that_nobody_tells_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "find_card", lambda: None)
    with Watch() as watch:
        watch.look()
    assert watch.taken is None


def test_times_are_told_by_their_middle_and_their_end() -> None:
    assert spread([1.0] * 95 + [9.0] * 5) == {"median": 1.0, "p95": pytest.approx(1.4), "count": 100}
