"""A file that a command was asked for: whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from elastic_runtime.errors import InputError
from elastic_runtime.format.manifest_reader import NAME


def check_outside(option: str, file: Path | None, bundle: Path) -> None:
    """Refuse a file in a bundle: it would be taken for damage, or take the place of one of the bundle's own.

    Args:
        option: that names the file.
        file: which need not be there; none is fine.
        bundle: a folder; another one than a bundle holds what it likes.

    Raises:
        InputError: naming the option.
    """
    if file is None or not (bundle / NAME).is_file():
        return
    if Path(os.path.realpath(file)).is_relative_to(os.path.realpath(bundle)):
        raise InputError(
            option,
            expected="a place outside of the bundle, which holds its own files alone",
            found=str(file),
            todo="leave it out, or name a file beside the bundle",
        )


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
