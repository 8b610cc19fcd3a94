"""The files beside a bundle: what is told of one run, and may therefore not be among the bundle's own bytes."""

from __future__ import annotations

import os
from pathlib import Path

from elastic_runtime.errors import InputError
from elastic_runtime.format.jsonfile import read_json


def own_path(folder: Path) -> Path:
    """The path of a folder that is exchanged as a whole, or given files beside it: as it was named, so that it is told
    so; resolved where that is a link, which stays one, or ends in no name (`.`, `..`).
    """
    plain = folder.name not in ("", "..") and not folder.is_symlink()
    return folder if plain else Path(os.path.realpath(folder))


def failed_report(output: Path) -> Path:
    """Where the report of a failed verification goes."""
    return output.with_name(f"{output.name}.failed.json")


def run_record_file(output: Path) -> Path:
    """Where the record of the last run that published the bundle goes (`run_record`)."""
    return output.with_name(f"{output.name}.run.json")


def check_beside(output: Path) -> None:
    """Whether these files may be replaced: there are none, or ones that an export wrote. Raises InputError."""
    for path, schema in ((failed_report(output), "elastic-report/"), (run_record_file(output), "elastic-run-record/")):
        if os.path.lexists(path) and (found := _stranger(path, schema)):
            raise InputError(
                str(path),
                expected="none, or one that an export wrote",
                found=found,
                todo="move it away, or name another output with --output",
            )


def _stranger(path: Path, ours: str) -> str:
    """What a path is, where it is no file whose schema begins with `ours`: another file of a bundle may be a copy of
    somebody's.
    """
    if path.is_symlink() or not path.is_file():
        return "a folder" if path.is_dir() else "a link or a device"
    try:
        found = read_json(path).get("schema")
    except InputError as error:
        return error.found
    return "" if isinstance(found, str) and found.startswith(ours) else "another JSON file"
