"""How many engines are built at once where nobody says: as many as processors and free memory allow."""

from __future__ import annotations

import pytest

from elastic_export.engine import side_by_side
from elastic_export.engine.side_by_side import BUILD_MEMORY, builds_at_once, builds_on
from elastic_export.plan.machine import Space


@pytest.mark.parametrize(
    ("processors", "builds", "expected"), [(4, 9, 4), (4, 3, 3), (4, 0, 1), (1, 9, 1), (4, None, 4)]
)
def test_the_scarcer_of_both_decides(processors: int, builds: int | None, expected: int) -> None:
    free = None if builds is None else builds * BUILD_MEMORY + 1
    assert builds_on(processors, free, weights_inside=False) == expected


def test_engines_with_weights_inside_are_built_one_by_one() -> None:
    assert builds_on(4, 1 << 40, weights_inside=True) == 1


@pytest.mark.parametrize(("memory", "expected"), [(Space(3 * BUILD_MEMORY, "here"), 3), (None, 5)])
def test_this_machine_is_asked(monkeypatch: pytest.MonkeyPatch, memory: Space | None, expected: int) -> None:
    monkeypatch.setattr(side_by_side, "processors", lambda: 5)
    monkeypatch.setattr(side_by_side, "free_memory", lambda: memory)
    assert builds_at_once(weights_inside=False) == expected
