"""However a bundle came about, an export over it gives what it gives over none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elastic_export.bundle import built
from repeated_export import ALL, Seen, inodes, run
from small_export import contents

# One worker: its exports share a trace.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile_incremental")]


REQUESTS: list[dict[str, Any]] = [
    {"budgets": budgets, "targets": targets, **more}
    for budgets in ("all", "full", "half")
    for targets in ("rtx5080", "rtx4090,rtx5090")
    for more in ({}, {"max_contexts": (32, 64)}, {"max_tokens": 8, "external_weights": True}, {"weights": "sliced"})
]


@pytest.fixture(scope="module")
def fresh(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, bytes]]:
    """What each request writes where there is nothing."""

    @cache
    def made(number: int) -> dict[str, bytes]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(built, "build_engine", Seen().build)
            folder = tmp_path_factory.mktemp("fresh") / "out"
            run(parent, folder, Seen(), **REQUESTS[number])
        return contents(folder)

    return made


@given(st.lists(st.integers(0, len(REQUESTS) - 1), min_size=2, max_size=4))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exports_over_any_bundle_give_what_they_give_over_none(
    tmp_path_factory: pytest.TempPathFactory,
    parent: Path,
    fresh: Callable[[int], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    numbers: list[int],
) -> None:
    out = tmp_path_factory.mktemp("sequence") / "out"
    monkeypatch.setattr(built, "build_engine", Seen().build)
    for number in numbers:
        run(parent, out, Seen(), **REQUESTS[number])
        assert contents(out) == fresh(number)
        assert not run(parent, out, Seen(), **REQUESTS[number]).changed


def test_add_keeps_what_is_not_named_and_does_nothing_the_second_time(
    tmp_path: Path, checkpoint: Path, seen: Seen
) -> None:
    out = tmp_path / "out"
    run(checkpoint, out, seen, verify=True, budgets="full")
    run(checkpoint, out, seen, verify=True, budgets="half", targets="rtx4090", add=True)
    assert (seen.built, seen.verified) == (["half/rtx4090.engine"], ["half"])
    run(checkpoint, out, seen, verify=True, targets="rtx4090", add=True)
    assert (seen.built, seen.verified) == (["full/rtx4090.engine"], [])
    run(checkpoint, out, seen, verify=True, budgets="half", add=True)
    assert (seen.built, seen.verified) == (["half/rtx5080.engine"], [])
    before = inodes(tmp_path)
    for asked in (ALL, {"budgets": "full"}, {"targets": "rtx4090"}, {"verify": False}):
        assert not run(checkpoint, out, seen, add=True, **{"verify": True, **asked}).changed
    assert inodes(tmp_path) == before
    run(checkpoint, tmp_path / "new", seen, verify=True, targets="rtx4090,rtx5080")
    assert contents(out) == contents(tmp_path / "new"), "what was added says what it was made from"
    assert run(checkpoint, out, seen, verify=True).changed, "without --add a bundle is what is asked for"
    assert seen.built == []
