"""Paths inside a bundle: relative, `/` between the parts, never out of the folder."""

from __future__ import annotations

from pathlib import Path

from elastic_runtime.errors import InputError
from elastic_runtime.format.records import show

_MAX_PATH = 1024  # bytes; what a tar archive and every file system take
#: Signs that no path in a bundle has: some system gives them a meaning, or has no such names.
_SIGNS = '\\:<>"|?*'
_BAD_SIGNS = frozenset(_SIGNS) | {chr(code) for code in (*range(32), 127)}


def check_relative(text: str, where: str, *, parents: int = 0) -> str:
    """Return `text` unchanged if it is a plain path below its folder.

    Args:
        text: the path as written in a bundle's file.
        where: how an error names the place.
        parents: how many leading `..` are allowed (a recipe in OUT/<budget>/ reaches OUT/weights/ through one).

    Raises:
        InputError: absolute or escaping path, `\\`, a drive letter, an empty part, a control character.
    """
    if _is_plain(text, parents):
        return text
    raise InputError(where, expected="a relative path inside the bundle, parts divided by '/'", found=_shown(text))


def check_file_name(text: str, where: str) -> str:
    """Return `text` if it is the name of a file and no path.

    What is loaded as code lies where the caller looks for it, nowhere else. Raises InputError.
    """
    if _is_plain(text, 0) and "/" not in text:
        return text
    expected = f"a plain file name, without / {' '.join(_SIGNS)} and control characters"
    raise InputError(where, expected=expected, found=_shown(text))


def check_name(text: str, where: str) -> str:
    """Return `text` if no control character is in it, which could steer a terminal. Raises InputError."""
    if any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in text):
        raise InputError(where, expected="a name without control characters", found=_shown(text))
    return text


def inside(root: Path, relative: str, where: str) -> Path:
    """The file `root/relative`, refusing one that a symbolic link takes out of `root`."""
    try:
        path, home = (root / relative).resolve(), root.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: Python before 3.13, about a link to itself
        todo = "replace the link by the file"
        raise InputError(where, expected=f"a file inside {root}", found=f"{error}", todo=todo) from error
    if home not in path.parents:
        raise InputError(
            where, expected=f"a file inside {root}", found=f"a link to {path}", todo="replace the link by the file"
        )
    return path


def _shown(text: str) -> str:
    return f"'{show(text)}'"


def _is_plain(text: str, parents: int) -> bool:
    parts = text.split("/")
    while parents and parts[0] == ".." and len(parts) > 1:
        parts, parents = parts[1:], parents - 1
    bad_part = any(part in ("", ".", "..") for part in parts)
    bad_sign = not _BAD_SIGNS.isdisjoint(text)
    return not (bad_part or bad_sign or len(text.encode("utf-8", "surrogatepass")) > _MAX_PATH or not _is_unicode(text))


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate from a JSON escape
        return False
    return True
