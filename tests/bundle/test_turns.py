"""Two exports of one output at a time: what one published the other does not lose, and nobody's files go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elastic_export.bundle import turns
from elastic_export.bundle.staging import hold
from elastic_export.bundle.turns import forget_turn, turn
from elastic_export.bundle.writer import BundleWriter
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, InputError

BIG, SMALL = {"big": [("rtx5080", 1024)]}, {"small": [("rtx5080", 1024)]}


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


@pytest.mark.parametrize("before", [None, BIG])
def test_what_was_published_meanwhile_is_not_lost_to_add(
    tmp_path: Path, export: Callable, before: dict[str, list[tuple[str, int]]] | None
) -> None:
    """Both looked before either published, as two that are started at once do."""
    out = tmp_path / "out"
    if before:
        export(out, before)

    def another(writer: BundleWriter) -> None:
        export(out, {"big": [("rtx4090", 1024)]})

    message = r"with --add nobody else at work there, found a bundle that another one published meanwhile\. Export a"
    with pytest.raises(BuildError, match=message):
        export(out, SMALL, add=True, before_finish=another)
    assert [engine.target for engine in Bundle.open(out, "digests").budgets[0].engines] == ["rtx4090"]
    assert hidden(tmp_path) == []


def test_add_to_what_was_removed_meanwhile(tmp_path: Path, export: Callable) -> None:
    """Nobody published, and nothing is called damaged that is not there."""
    out = tmp_path / "out"
    export(out, BIG)
    with pytest.raises(
        BuildError, match=r"nobody else at work there, found the bundle gone that stood there\. Export a"
    ):
        export(out, SMALL, add=True, before_finish=lambda writer: shutil.rmtree(out))
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_add_beside_a_running_export_is_refused_before_any_work(tmp_path: Path, export: Callable) -> None:
    out = tmp_path / "out"
    with BundleWriter(out) as first:
        with pytest.raises(BuildError, match=f"found another export, at work in {first.path}.*elastic-export merge"):
            export(out, SMALL, add=True)
        export(tmp_path / "other", SMALL, add=True)
    export(out, SMALL, add=True)
    assert hidden(tmp_path) == []


def test_without_add_the_last_one_stays(tmp_path: Path, export: Callable) -> None:
    out = tmp_path / "out"
    export(out, SMALL, before_finish=lambda writer: export(out, BIG))
    assert [budget.name for budget in Bundle.open(out, "digests").budgets] == ["small"]


@pytest.mark.parametrize("bundle", [False, True])
def test_what_somebody_put_there_meanwhile_is_not_removed(tmp_path: Path, export: Callable, bundle: bool) -> None:
    out = tmp_path / "out"
    if bundle:
        export(out, BIG)

    def write(writer: BundleWriter) -> None:
        out.mkdir(exist_ok=True)
        (out / "thesis.tex").write_text("years of work")

    with pytest.raises(BuildError, match=f"output {out}: expected a bundle "):  # no fault of the request
        export(out, SMALL, before_finish=write)
    assert (out / "thesis.tex").read_text() == "years of work"
    assert hidden(tmp_path) == []


def test_a_turn_is_waited_for_and_not_for_ever(
    tmp_path: Path, export: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_PATIENCE", 0.1)
    out, other = tmp_path / "out", tmp_path / "other"
    with turn(out), turn(other):
        with pytest.raises(BuildError, match=r"\.out\.publishing: expected its turn to publish, found another export"):
            turn(out).__enter__()
        with pytest.raises(BuildError, match="expected its turn"):
            export(out, BIG)
        forget_turn(out)
        assert hidden(tmp_path) == [".other.publishing", ".out.publishing"], "held"
    assert hidden(tmp_path) == []
    with turn(out):
        pass


@pytest.mark.parametrize(("module", "step"), [(os, "mkdir"), (turns, "hold")])
def test_a_turn_that_ends_while_somebody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, step: str
) -> None:
    """The folder that stood in the way of the waiting one's, or that it had opened, is gone: it makes another."""
    out, plain, first = tmp_path / "out", getattr(module, step), turn(tmp_path / "out")
    first.__enter__()
    ends = iter([True])

    def ended(*arguments: Any) -> Any:
        try:
            return plain(*arguments)
        finally:
            if next(ends, False):
                first.__exit__(None, None, None)

    monkeypatch.setattr(module, step, ended)
    with turn(out):
        assert next(ends, None) is None, "it came to that"
        assert hold(tmp_path / ".out.publishing") is None
    assert hidden(tmp_path) == []


def test_what_a_kill_left_of_a_turn_goes_with_the_next_export(tmp_path: Path) -> None:
    (tmp_path / ".out.publishing").mkdir()
    with BundleWriter(tmp_path / "out"):
        assert not (tmp_path / ".out.publishing").exists()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("link", ["", "nowhere", "."])
@pytest.mark.parametrize("name", [".out.publishing", ".out.quantised"])
def test_what_stands_where_a_folder_of_ours_goes_is_told_before_any_work(tmp_path: Path, name: str, link: str) -> None:
    path = tmp_path / name
    path.symlink_to(link) if link else path.touch()
    message = rf"{name}: expected none, or a folder that an export made, found a file or a link\. Move it"
    with pytest.raises(InputError, match=message):
        BundleWriter(tmp_path / "out").__enter__()
    assert os.listdir(tmp_path) == [name]
