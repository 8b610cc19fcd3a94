"""What lies beside a bundle: files that tell of one run, and may therefore not be among the bundle's own bytes; folders
of exports that are at work.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from elastic_export.weights.quantised import UNFINISHED
from elastic_runtime.errors import InputError
from elastic_runtime.format.jsonfile import read_json

_AWAY = "move it away, or name another output with --output"


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


def turn_folder(output: Path) -> Path:
    """The folder that says whose turn it is to publish (turns.py)."""
    return output.with_name(f".{output.name}.publishing")


def work_folder(output: Path, what: str) -> Path:
    """The folder of the work of that name that outlives an export (unfinished.py)."""
    return output.with_name(f".{output.name}.{what}")


def check_beside(output: Path) -> None:
    """Whether these files may be replaced and these folders used: there are none, or an export's. Raises InputError."""
    for path, schema in ((failed_report(output), "elastic-report/"), (run_record_file(output), "elastic-run-record/")):
        if os.path.lexists(path) and (found := _stranger(path, schema)):
            raise InputError(
                str(path),
                expected="none, or one that an export wrote",
                found=found,
                todo=_AWAY,
            )
    for folder in (turn_folder(output), work_folder(output, UNFINISHED)):
        with suppress(FileNotFoundError):  # one look: another export may make or remove it just now
            if not stat.S_ISDIR(folder.lstat().st_mode):
                expected = "none, or a folder that an export made"
                raise InputError(str(folder), expected=expected, found="a file or a link", todo=_AWAY)


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
