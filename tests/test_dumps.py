"""The dumps of `--debug`: they replace dumps and nothing else."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import onnx_ir as ir
import pytest

from elastic_export import dumps
from elastic_export.dumps import check_dumps, dump_folder, dump_to
from elastic_export.passes.base import GraphPass
from elastic_runtime.errors import InputError


class Nothing(GraphPass):
    """Changes nothing."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        return ir.passes.PassResult(model, modified=False)


NAMES = {"dumps.json", "00-Nothing.txt", "00-Nothing.onnx"}


def graph() -> ir.Model:
    return ir.from_onnx_text('<ir_version: 10, opset_import: ["" : 20]> g (float[1] x) => (float[1] y) {y = Neg(x)}')


def dump(folder: Path, steps: int) -> None:
    hook, model = dump_to(folder), graph()
    for step in range(steps):
        hook(step, Nothing(), model)


def test_older_dumps_are_replaced(tmp_path: Path) -> None:
    dump(tmp_path / "out.debug" / "small", 3)
    assert len(list((tmp_path / "out.debug" / "small").iterdir())) == 7
    check_dumps(tmp_path / "out")
    dump(tmp_path / "out.debug" / "small", 1)
    assert {p.name for p in (tmp_path / "out.debug" / "small").iterdir()} == NAMES
    check_dumps(tmp_path / "out")


@pytest.mark.parametrize("name", ["thesis.tex", "01-Introduction.txt", "dumps.json.new"])
def test_what_came_into_the_folder_meanwhile_outlives_the_dumps(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out.debug" / "small"
    dump(folder, 1)
    (folder / name).write_text("years of work")
    for again in (lambda: check_dumps(tmp_path / "out"), lambda: dump(folder, 1)):
        with pytest.raises(
            InputError, match=rf"out\.debug: expected none, or the dumps .*, found small/{name} as well"
        ):
            again()
    assert {p.name for p in folder.iterdir()} == {*NAMES, name}
    assert (folder / name).read_text() == "years of work"


def test_a_dump_that_was_edited_is_nobody_elses_to_remove(tmp_path: Path) -> None:
    folder = tmp_path / "out.debug" / "small"
    dump(folder, 1)
    (folder / "00-Nothing.txt").write_text("what I saw here")
    for again in (lambda: check_dumps(tmp_path / "out"), lambda: dump(folder, 1)):
        with pytest.raises(InputError, match=r"found small/00-Nothing\.txt as well"):
            again()
    assert (folder / "00-Nothing.txt").read_text() == "what I saw here"


def test_a_file_that_comes_between_two_passes_is_not_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "out.debug" / "small"
    hook, model = dump_to(folder), graph()
    (folder / "00-Nothing.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"out\.debug: .*, found small/00-Nothing\.txt as well"):
        hook(0, Nothing(), model)
    assert (folder / "00-Nothing.txt").read_text() == "years of work"


def test_dumps_of_a_version_that_kept_no_list_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out.debug" / "small"
    dump(folder, 1)
    (folder / "dumps.json").unlink()
    with pytest.raises(
        InputError, match=r"found small/00-Nothing.onnx as well and 1 more\. .*if an older version wrote"
    ):
        check_dumps(tmp_path / "out")
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("text", ["[]", "{", '{"schema": "thesis/1", "files": {}}', '{"schema": "elastic-debug/1"}'])
def test_a_list_that_is_not_ours_lists_nothing(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "out.debug" / "small"
    dump(folder, 1)
    (folder / "dumps.json").write_text(text)
    with pytest.raises(InputError, match="and 2 more"):
        check_dumps(tmp_path / "out")


def test_a_list_removes_nothing_outside_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out.debug" / "small"
    folder.mkdir(parents=True)
    (tmp_path / "thesis.tex").write_text("years of work")
    digest = hashlib.sha256(b"years of work").hexdigest()
    listed = {"": digest, "..": digest, "../../thesis.tex": digest, str(tmp_path / "thesis.tex"): digest}
    (folder / "dumps.json").write_text(json.dumps({"schema": "elastic-debug/1", "files": listed}))
    dump(folder, 1)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_dumps_that_end_in_the_middle_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk or an interrupt, then the same export again."""
    folder = tmp_path / "out.debug" / "small"
    hook, model = dump_to(folder), graph()
    hook(0, Nothing(), model)

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".onnx":
            raise OSError(errno.ENOSPC, "No space left on device")
        written(path, data)

    written = dumps._write_new
    monkeypatch.setattr(dumps, "_write_new", full)
    with pytest.raises(OSError, match="No space"):
        hook(1, Nothing(), model)
    monkeypatch.undo()
    check_dumps(tmp_path / "out")
    dump(folder, 1)
    assert {p.name for p in folder.iterdir()} == NAMES


@pytest.mark.parametrize(
    "name",
    [
        "thesis.tex",
        "small/thesis.tex",
        "small/00-Nothing.tex",
        "small/00-Nothing.txt/x",
        "00-Nothing.txt",
        "texts/01-Introduction.txt",
        "small/dumps.json",
        "dumps.json",
    ],
)
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "out.debug" / name
    file.parent.mkdir(parents=True)
    file.write_text("years of work")
    other = name.removesuffix("/x")
    with pytest.raises(InputError, match=rf"--debug, folder .*out\.debug: expected .*, found {other} as well\. Move"):
        check_dumps(tmp_path / "out")
    assert file.read_text() == "years of work"


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "00-Nothing.txt").write_text("years of work")
    (tmp_path / "out.debug").mkdir()
    (tmp_path / "out.debug" / "small").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="found small as well"):
        check_dumps(tmp_path / "out")


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    dump_folder(tmp_path / "out").write_text("years of work")
    with pytest.raises(InputError, match=r"out\.debug: expected a folder, found a file"):
        check_dumps(tmp_path / "out")
