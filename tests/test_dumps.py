"""The dumps of `--debug`: they replace dumps and nothing else."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from elastic_export.dumps import check_dumps, dump_folder, dump_to
from elastic_export.passes.base import GraphPass
from elastic_runtime.errors import InputError


class Nothing(GraphPass):
    """Changes nothing."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        return ir.passes.PassResult(model, modified=False)


def dump(folder: Path, steps: int) -> None:
    model = ir.from_onnx_text('<ir_version: 10, opset_import: ["" : 20]> g (float[1] x) => (float[1] y) {y = Neg(x)}')
    hook = dump_to(folder)
    for step in range(steps):
        hook(step, Nothing(), model)


def test_older_dumps_are_replaced(tmp_path: Path) -> None:
    dump(tmp_path / "out.debug" / "small", 3)
    assert len(list((tmp_path / "out.debug" / "small").iterdir())) == 6
    check_dumps(tmp_path / "out")
    dump(tmp_path / "out.debug" / "small", 1)
    assert {p.name for p in (tmp_path / "out.debug" / "small").iterdir()} == {"00-Nothing.txt", "00-Nothing.onnx"}


def test_what_is_no_dump_outlives_them(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    dump(folder, 1)
    (folder / "thesis.tex").write_text("years of work")
    dump(folder, 1)
    assert (folder / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "name", ["thesis.tex", "small/thesis.tex", "small/00-Nothing.tex", "small/00-Nothing.txt/x", "00-Nothing.txt"]
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
