"""`--debug`: the graph after every pass, as text and as ONNX, in `OUT.debug/<budget>/NN-PassName.{txt,onnx}`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import onnx_ir as ir

from elastic_export.passes.base import After, GraphPass
from elastic_export.plan.job import ExportOptions
from elastic_runtime.errors import InputError

_DUMP = re.compile(r"\d{2,}-[A-Za-z]\w*\.(txt|onnx)")


def dump_folder(output: Path) -> Path:
    """Where the dumps of an export to `output` go, a folder a budget."""
    return output.with_name(f"{output.name}.debug")


def check_dumps(output: Path) -> None:
    """Whether the folder of the dumps may be written: it is absent or holds nothing but dumps.

    Raises:
        InputError: something else is there.
    """
    folder = dump_folder(output)
    subject, todo = f"--debug, folder {folder}", "move it away, or name another output with --output"
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(subject, expected="a folder", found="a file", todo=todo)
    others = _others(folder)
    if others:
        found = f"{others[0]} as well" + (f" and {len(others) - 1} more" if len(others) > 1 else "")
        raise InputError(subject, expected="none, or dumps of --debug only", found=found, todo=todo)


def dumps_of(options: ExportOptions, budget: str) -> After | None:
    """The hook that writes a budget's dumps where they are asked for."""
    return dump_to(dump_folder(options.output) / budget) if options.debug else None


def dump_to(folder: Path) -> After:
    """A hook for `run_passes` that writes into a budget's folder; older dumps in it are removed, nothing else is."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if _DUMP.fullmatch(path.name):
            path.unlink()

    def dump(step: int, each: GraphPass, model: ir.Model) -> None:
        stem = folder / f"{step:02d}-{each.name}"
        stem.with_suffix(".txt").write_text(f"{model}\n", encoding="utf-8")
        stem.with_suffix(".onnx").write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))

    return dump


def _others(folder: Path) -> list[str]:
    """What lies in the folder and is neither a budget's folder nor a dump in one, by its path inside."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_symlink() or not path.is_dir():
            found.append(path)
        else:
            found += [p for p in path.iterdir() if p.is_symlink() or not p.is_file() or not _DUMP.fullmatch(p.name)]
    return sorted(path.relative_to(folder).as_posix() for path in found)
