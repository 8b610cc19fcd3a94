"""Folders beside a bundle whose files outlive an export that does not end."""

from __future__ import annotations

from pathlib import Path

import pytest

from elastic_export.bundle import unfinished
from elastic_export.bundle.unfinished import Unfinished, tell_what_is_left


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    folder = tmp_path / ".out.partial"
    folder.mkdir()
    return folder


def test_what_was_taken_goes_when_the_bundle_is_published(tmp_path: Path, stage: Path) -> None:
    work = Unfinished(tmp_path / "out", stage)
    folder = work.folder("quantised")
    assert folder == tmp_path / ".out.quantised" == work.folder("quantised")
    (folder / "a").write_text("weights")
    work.take(folder / "a", stage / "a")
    (folder / "a.json").write_text("of it")
    work.spend(folder / "a.json")
    work.clear(published=False)
    assert {path.name for path in folder.iterdir()} == {"a", "a.json"}
    work.clear(published=True)
    assert not folder.exists()
    assert (stage / "a").read_text() == "weights"
    work.close()


def test_an_export_that_does_not_publish_leaves_it(tmp_path: Path, stage: Path) -> None:
    work = Unfinished(tmp_path / "out", stage)
    (work.folder("quantised") / "a").write_text("weights")
    work.close()
    later = Unfinished(tmp_path / "out", stage)
    assert (later.folder("quantised") / "a").read_text() == "weights"
    later.close()


def test_what_nobody_takes_up_is_told_with_its_size(tmp_path: Path, stage: Path) -> None:
    told = list[str]()
    output = tmp_path / "my out"
    tell_what_is_left(output, told.append)
    folder = tmp_path / ".my out.quantised"
    folder.mkdir()
    (folder / "thesis.txt").write_bytes(bytes(7))
    tell_what_is_left(output, told.append)
    assert told == [], "nothing there, nothing of ours"
    (folder / "q8-00001-of-00002.safetensors").write_bytes(bytes(2 << 20))
    (folder / "q8-00002-of-00002.part").write_bytes(bytes(1 << 20))
    tell_what_is_left(output, told.append)
    left = f"{folder}: 3.0 MiB of an export that did not end; the next one that quantises takes up or removes it"
    assert told == [f"{left}; to do so now: rm '{folder}'/q8-*"]
    work = Unfinished(output, stage)
    work.folder("quantised")
    tell_what_is_left(output, told.append)
    assert len(told) == 1, "somebody works there"
    work.close()


def test_a_folder_that_may_not_be_looked_into_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(unfinished, "hold", refused)
    (tmp_path / ".out.quantised").mkdir()
    tell_what_is_left(tmp_path / "out", pytest.fail)


def test_what_else_lies_there_is_left_alone(tmp_path: Path, stage: Path) -> None:
    work = Unfinished(tmp_path / "out", stage)
    folder = work.folder("quantised")
    for name in ("a", "thesis.txt"):
        (folder / name).write_text(name)
    work.take(folder / "a", stage / "a")
    work.clear(published=True)
    work.close()
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_where_another_export_works_it_is_done_in_the_stage(tmp_path: Path, stage: Path) -> None:
    first, second = Unfinished(tmp_path / "out", stage), Unfinished(tmp_path / "out", stage)
    mine, other = first.folder("quantised"), second.folder("quantised")
    assert other == stage / ".quantised" != mine
    (other / "a").write_text("weights")
    second.take(other / "a", stage / "a")
    second.clear(published=False)  # before the bundle's files are listed
    assert [path.name for path in stage.iterdir()] == ["a"]
    second.close()
    first.close()
