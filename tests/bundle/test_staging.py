"""Staged folders of several writers: none meets another's, none is left for ever."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from elastic_export.bundle import staging
from elastic_export.bundle.staging import Stage, recover
from elastic_export.bundle.writer import BundleWriter
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError

ASKED = {"big": [("rtx5080", 1024)]}


@pytest.fixture
def one_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers, where every export is process 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


@pytest.mark.usefixtures("one_pid")
def test_two_writers_with_one_process_id(tmp_path: Path, export: Callable) -> None:
    out = tmp_path / "out"
    with BundleWriter(out) as first:
        export(out, ASKED)
        assert first.path.is_dir()
    assert Bundle.open(out, "digests")
    assert hidden(tmp_path) == []


@pytest.mark.usefixtures("one_pid")
@pytest.mark.parametrize("suffix", ["999999999-0123abcd", "1-0123abcd"])
def test_leftovers_are_removed_at_once(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f".out.partial-{suffix}").mkdir()
    recover(tmp_path / "out", lambda text: None)
    assert hidden(tmp_path) == []


def test_a_bundle_aside_comes_back_but_not_from_a_living_export(tmp_path: Path) -> None:
    suffix = "7-0123abcd"
    out, partial, aside = (tmp_path / name for name in ("out", f".out.partial-{suffix}", f".out.old-{suffix}"))
    aside.mkdir()
    partial.mkdir()
    lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    recover(out, lambda text: None)
    assert hidden(tmp_path) == [aside.name, partial.name], "its export stands between its two renames"
    os.close(lock)
    recover(out, lambda text: None)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("partial", [False, True])
def test_an_older_bundle_aside_of_a_published_one_is_removed(
    tmp_path: Path, export: Callable, tree: Callable, partial: bool
) -> None:
    export(tmp_path / ".out.old-7-0123abcd", ASKED, text="old")
    export(tmp_path / "out", ASKED, text="new")
    if partial:
        (tmp_path / ".out.partial-7-0123abcd").mkdir()
    before = tree(tmp_path / "out")
    recover(tmp_path / "out", lambda text: None)
    assert hidden(tmp_path) == []
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("output", ["none", "empty", "a bundle"])
@pytest.mark.parametrize("kind", ["old", "partial"])
def test_a_folder_with_a_date_made_by_hand_is_left_alone(
    tmp_path: Path, export: Callable, tree: Callable, kind: str, output: str
) -> None:
    """It may well be a bundle: somebody's backup of one."""
    backup = tmp_path / f".out.{kind}-20241126"
    export(backup, ASKED)
    before = tree(backup)
    if output == "empty":
        (tmp_path / "out").mkdir()
    export(tmp_path / "out", ASKED, text="new")
    recover(tmp_path / "out", lambda text: None)
    assert tree(backup) == before


def test_what_is_aside_and_no_bundle_is_left_alone_and_named(tmp_path: Path, export: Callable) -> None:
    aside, said = tmp_path / ".out.old-7-0123abcd", list[str]()
    export(tmp_path / "out", ASKED)
    aside.mkdir()
    (aside / "thesis.tex").write_text("years of work")
    recover(tmp_path / "out", said.append)
    assert said == [f"{aside}: left alone; it or out is no bundle"]
    assert (aside / "thesis.tex").read_text() == "years of work"


def test_the_only_whole_bundle_is_not_removed_for_a_folder_without_one(
    tmp_path: Path, export: Callable, tree: Callable
) -> None:
    """Somebody made the output's folder after a kill between the two renames."""
    out, aside = tmp_path / "out", tmp_path / ".out.old-7-0123abcd"
    export(aside, ASKED)
    before = tree(aside)
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    recover(out, lambda text: None)
    assert tree(aside) == before
    assert (out / "thesis.tex").read_text() == "years of work"
    (out / "thesis.tex").unlink()
    recover(out, lambda text: None)
    assert tree(out) == before
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("looks", [False, True])
def test_a_new_stage_that_is_taken_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: bool
) -> None:
    """Another export's `recover` finds the folder in the moment before its lock, or `running` holds it just then."""
    out, mkdir, once, held = tmp_path / "out", Path.mkdir, iter([True]), list[int | None]()

    def made_and_found(self: Path, *args: object, **more: object) -> None:
        mkdir(self, *args, **more)  # type: ignore[arg-type]
        if self.name.startswith(".out.partial-") and next(once, False):
            held.append(staging.hold(self)) if looks else recover(out, lambda text: None)

    monkeypatch.setattr(Path, "mkdir", made_and_found)
    stage = Stage(out)
    for lock in held:
        assert lock is not None
        os.close(lock)
    assert hidden(tmp_path) == [stage.path.name]
    recover(out, lambda text: None)
    assert stage.path.is_dir(), "held"
    stage.close()
    assert hidden(tmp_path) == []


def test_what_is_being_removed_is_held_until_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".out.partial-999999999-0123abcd").mkdir()
    remove, seen = staging.remove, []

    def watched(folder: Path) -> None:
        seen.append(staging.hold(folder))
        remove(folder)

    monkeypatch.setattr(staging, "remove", watched)
    recover(tmp_path / "out", lambda text: None)
    assert seen == [None]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF])
def test_a_file_system_without_locks_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """NFS takes no exclusive lock of a folder, and some 9p and FUSE file systems take none at all."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / ".out.partial-5-0123abcd").mkdir()  # nobody can tell whose it is
    monkeypatch.setattr(fcntl, "flock", flock)
    expected = rf"folder .*: expected a file system with locks \(flock\), found {os.strerror(code)}\. Name an output on"
    with pytest.raises(InputError, match=expected), BundleWriter(tmp_path / "deep" / "out"):
        pytest.fail("began without a lock")
    assert [p.name for p in tmp_path.iterdir()] == [".out.partial-5-0123abcd"]
    with pytest.raises(InputError, match=expected), BundleWriter(tmp_path / "out"):
        pytest.fail("began without a lock")
    assert [p.name for p in tmp_path.iterdir()] == [".out.partial-5-0123abcd"]
