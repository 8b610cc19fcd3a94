"""`--debug`: the graph after every pass, as text and as ONNX, in `OUT.debug/<budget>/NN-PassName.{txt,onnx}`.

Names like these are anybody's (`01-Introduction.txt`), so what may be removed is not told by them: beside the dumps of
a budget stands `dumps.json`, a list of what was written there with its digests. What is not in it, or has other bytes,
is somebody's.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx_ir as ir

from elastic_export.passes.base import After, GraphPass
from elastic_export.plan.job import ExportOptions
from elastic_runtime.errors import InputError
from elastic_runtime.format.digest import file_digest
from elastic_runtime.format.jsonfile import read_json

LIST = "dumps.json"
SCHEMA = "elastic-debug/1"


def dump_folder(output: Path) -> Path:
    """Where the dumps of an export to `output` go, a folder a budget."""
    return output.with_name(f"{output.name}.debug")


def check_dumps(output: Path) -> None:
    """Whether the folder of the dumps may be written: it is absent or holds nothing but dumps as they were written.

    Raises:
        InputError: something else is there.
    """
    folder = dump_folder(output)
    if os.path.lexists(folder) and not folder.is_dir():
        todo = "move it away, or name another output with --output"
        raise InputError(f"--debug, folder {folder}", expected="a folder", found="a file", todo=todo)
    _refuse(folder, sorted(_others(folder)))


def dumps_of(options: ExportOptions, budget: str) -> After | None:
    """The hook that writes a budget's dumps where they are asked for."""
    return dump_to(dump_folder(options.output) / budget) if options.debug else None


def dump_to(folder: Path) -> After:
    """A hook for `run_passes` that writes into a budget's folder; older dumps in it are removed, nothing else is.

    Raises:
        InputError: here or by the hook: something came into the folder that its list does not name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _refuse(folder.parent, sorted(f"{folder.name}/{name}" for name in _strangers(folder)))
    listed = _listed(folder) or {}
    for path in folder.iterdir():
        if path.name in listed:
            path.unlink()
    files: dict[str, str] = {}
    _write_list(folder, files)

    def dump(step: int, each: GraphPass, model: ir.Model) -> None:
        stem = f"{step:02d}-{each.name}"
        dumps = {
            f"{stem}.txt": f"{model}\n".encode(),
            f"{stem}.onnx": ir.to_proto(model).SerializeToString(deterministic=True),
        }
        files.update({name: hashlib.sha256(data).hexdigest() for name, data in dumps.items()})
        _write_list(folder, files)  # first: an export that is killed leaves no dump that no list names
        for name, data in dumps.items():
            _write_new(folder / name, data)

    return dump


def _refuse(folder: Path, others: list[str]) -> None:
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise InputError(
            f"--debug, folder {folder}",
            expected=f"none, or the dumps of --debug that a {LIST} in it lists, unchanged",
            found=f"{others[0]} as well{more}",
            todo="move it away (remove the folder if an older version wrote it), or name another output with --output",
        )


def _others(folder: Path) -> Iterator[str]:
    """What lies in the folder and is neither a budget's folder nor a dump of ours in one, by its path inside."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_symlink() or not path.is_dir():
            yield path.name
        else:
            yield from (f"{path.name}/{name}" for name in _strangers(path))


def _strangers(folder: Path) -> list[str]:
    """What lies in a budget's folder and is not as we wrote it."""
    listed = _listed(folder)
    if listed is None:
        return [path.name for path in folder.iterdir()]
    return [path.name for path in folder.iterdir() if path.name != LIST and not _is_ours(path, listed)]


def _listed(folder: Path) -> Mapping[str, str] | None:
    """The dumps that the folder's list names, with their digests; None where there is no list of ours."""
    path = folder / LIST
    if path.is_symlink() or not path.is_file():
        return None
    try:
        found = read_json(path)
    except InputError:
        return None
    files = found.get("files")
    if found.get("schema") != SCHEMA or not isinstance(files, dict):
        return None
    return files


def _is_ours(path: Path, listed: Mapping[str, str]) -> bool:
    if path.name not in listed or path.is_symlink() or not path.is_file():
        return False
    return file_digest(path)[1] == listed[path.name]


def _write_list(folder: Path, files: Mapping[str, str]) -> None:
    text = json.dumps({"schema": SCHEMA, "files": files}, indent=1) + "\n"
    path = folder / LIST
    new = path.with_name(f"{LIST}.new")
    _write_new(new, text.encode())
    new.replace(path)


def _write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet: whole, or not at all unless the process is killed."""
    try:
        file = path.open("xb")
    except FileExistsError:
        _refuse(path.parents[1], [f"{path.parent.name}/{path.name}"])
        raise
    try:
        with file:
            file.write(data)
    except BaseException:
        path.unlink()
        raise
