"""How many engines are built at once where nobody says: as many as processors and free memory allow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from elastic_export.engine import side_by_side
from elastic_export.engine.side_by_side import BUILD_MEMORY, builds_at_once, free_memory

MEMINFO = "MemTotal:       24000000 kB\nMemFree:          100000 kB\nMemAvailable:    8000000 kB\n"


def machine(monkeypatch: pytest.MonkeyPatch, processors: int, free: int | None) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)))
    monkeypatch.setattr(side_by_side, "free_memory", lambda: free)


@pytest.mark.parametrize(
    ("processors", "builds", "expected"), [(4, 9, 4), (4, 3, 3), (4, 0, 1), (1, 9, 1), (4, None, 4)]
)
def test_the_scarcer_of_both_decides(
    monkeypatch: pytest.MonkeyPatch, processors: int, builds: int | None, expected: int
) -> None:
    machine(monkeypatch, processors, None if builds is None else builds * BUILD_MEMORY + 1)
    assert builds_at_once(weights_inside=False) == expected


def test_engines_with_weights_inside_are_built_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 4, 1 << 40)
    assert builds_at_once(weights_inside=True) == 1


@pytest.mark.parametrize(
    ("limit", "stat", "expected"),
    [
        ("max\n", "anon 5\n", 8_000_000 * 1024),
        ("1000000\n", "anon 400000\nfile 500000\n", 600_000),
        ("1000000\n", "anon 2000000\n", 0),
        ("1000000\n", "file 7\n", 8_000_000 * 1024),
        (None, None, 8_000_000 * 1024),
    ],
)
def test_a_containers_limit_counts_and_its_file_cache_does_not(
    tmp_path: Path, limit: str | None, stat: str | None, expected: int
) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    for name, text in (("memory.max", limit), ("memory.stat", stat)):
        if text is not None:
            (tmp_path / name).write_text(text)
    assert free_memory(tmp_path / "meminfo", tmp_path) == expected


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert free_memory(tmp_path / "none", tmp_path / "none") is None
