from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from elastic_export.bundle import run_record
from elastic_export.bundle.beside import check_beside, failed_report, run_record_file
from elastic_export.bundle.output import check_output
from elastic_export.verify import report
from elastic_runtime.errors import InputError


@pytest.fixture
def bundle(tmp_path: Path, export: Callable) -> Path:
    export(tmp_path / "out", {"big": [("rtx5080", 1024)]})
    return tmp_path / "out"


def test_absent_and_empty_folders_and_bundles_are_fine(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "absent", tmp_path / "far" / "away", tmp_path / "empty"):
        assert check_output(path) == (path, None)
    path, manifest = check_output(bundle)
    assert manifest is not None
    assert [b.name for b in manifest.budgets] == ["big"]
    assert path == bundle


def test_a_link_to_a_bundle_is_followed(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "link").symlink_to("out")
    assert check_output(tmp_path / "link")[0] == bundle


def test_links_that_lead_back_to_themselves_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "there").symlink_to("back")
    (tmp_path / "back").symlink_to("there")
    for name in ("loop", "there", "back", "loop/out", "there/out"):
        with pytest.raises(InputError, match="found a symbolic link that leads back to itself"):
            check_output(tmp_path / name, force=True)
    (tmp_path / "dangling").symlink_to("new")
    assert check_output(tmp_path / "dangling") == (tmp_path / "new", None)


@pytest.mark.parametrize("name", [b"o\xff", b"o\xff/out"])
def test_a_path_that_is_no_text_is_refused(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(InputError, match=r"o\\udcff.*: expected a path in UTF-8, found .*\. Name another output"):
        check_output(tmp_path / os.fsdecode(name))
    assert check_output(tmp_path / "größer")[1] is None


def test_a_file_in_the_way_is_refused_even_with_force(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    for path in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(InputError, match="found a file") as error:
            check_output(path, force=True)
        assert error.value.exit_code == 2


def test_a_folder_that_is_no_bundle_needs_force(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(
        InputError,
        match=r"found a folder with no manifest.json in it. Name another output, or replace it",
    ):
        check_output(tmp_path / "out")
    assert check_output(tmp_path / "out", force=True) == (tmp_path / "out", None)


def test_a_bundle_that_holds_somebody_elses_files_needs_force(bundle: Path) -> None:
    (bundle / "notes.txt").touch()
    (bundle / "photos").mkdir()
    (bundle / "photos" / "cat.jpg").touch()
    with pytest.raises(InputError, match=r"found notes\.txt as well and 1 more"):
        check_output(bundle)
    assert check_output(bundle, force=True)[1] is not None


def test_a_damaged_manifest_needs_force(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace("rtx5080", "rtx5090", 1))
    with pytest.raises(InputError, match="--force"):
        check_output(bundle)


@pytest.mark.parametrize("force", [True, False])
def test_folders_that_hold_what_must_survive_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    checkpoint, work, home = (tmp_path / name / "sub" for name in ("a", "b", "c"))
    for folder in (checkpoint, work, home):
        folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    for name in ("a", "a/sub", "b", "b/sub", "c", "c/sub"):
        with pytest.raises(InputError, match="expected a folder of its own"):
            check_output(tmp_path / name, force=force, protect=[checkpoint])
    check_output(checkpoint / "engines", protect=[checkpoint])


def test_no_right_to_write_is_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(InputError, match=f"expected the right to write, found none in {tmp_path}"):
        check_output(tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


def test_rights_that_only_show_when_used_are_input_errors_too(
    tmp_path: Path, export: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="expected a folder that can be written, found Permission denied"):
        export(tmp_path / "out", {"big": []})


def test_a_name_too_long_for_the_file_system(tmp_path: Path, export: Callable) -> None:
    with pytest.raises(InputError, match="File name too long"):
        export(tmp_path / ("n" * 250), {"big": []})


def test_a_mount_point_is_refused_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "out")
    with pytest.raises(InputError, match="a folder that can be exchanged, found a mount point"):
        check_output(tmp_path / "out")
    check_output(tmp_path / "out" / "bundle")


def test_what_exports_write_beside_a_bundle_is_taken_for_theirs(tmp_path: Path) -> None:
    """By the schemas that its writers give it."""
    for path, schema in (
        (failed_report(tmp_path / "out"), report.SCHEMA),
        (run_record_file(tmp_path / "out"), run_record.SCHEMA),
    ):
        path.write_text(f'{{"schema": "{schema}"}}')
        check_beside(tmp_path / "out")


def test_an_output_keeps_its_name_but_for_a_link_which_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link would be exchanged in its target's place, and `.` has no name that files beside it could be given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    for named, path in {"out": "out", "link/out": "link/out", "../x": "../x", "a/../out": "a/../out"}.items():
        assert check_output(Path(named))[0] == Path(path)
    assert check_output(Path("link/below"))[0] == Path("link/below")
    assert check_output(Path("link"), force=True)[0] == tmp_path.resolve() / "real"
    monkeypatch.chdir(tmp_path / "real" / "below")
    for named in (".", "..", "../below", "../../real", "../../link"):
        with pytest.raises(InputError, match="expected a folder of its own, found one that holds"):
            check_output(Path(named), force=True)
