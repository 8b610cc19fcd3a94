"""A file that a command was asked for: whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from elastic_runtime.errors import InputError


def write_whole(file: Path, text: str, option: str) -> None:
    """Write a file in one step; an older one stays as it was until then. A pipe or a device is written to as it is.

    Raises:
        InputError: it cannot be written; `option` names another place.
    """
    place = Path(os.path.realpath(file))  # a link stays a link
    beside = place.with_name(f".{place.name}.{os.getpid()}.new")
    try:
        if place.exists() and not place.is_file():
            place.write_text(text, "utf-8")
            return
        try:
            beside.write_text(text, "utf-8")
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        found, todo = error.strerror or str(error), f"name another place with {option}"
        raise InputError(str(file), expected="a file that can be written", found=found, todo=todo) from error
