"""Paths inside a bundle: relative, `/` between the parts, never out of the folder."""

from __future__ import annotations

from pathlib import Path

from elastic_runtime.errors import InputError
from elastic_runtime.records import show

_MAX_PATH = 1024  # bytes; what a tar archive and every file system take


def check_relative(text: str, where: str, *, parents: int = 0) -> str:
    """Return `text` unchanged if it is a plain path below its folder.

    Args:
        text: the path as written in a bundle's file.
        where: how an error names the place.
        parents: how many leading `..` are allowed (a recipe in OUT/<budget>/ reaches OUT/weights/ through one).

    Raises:
        InputError: absolute or escaping path, `\\`, a drive letter, an empty part, a control character.
    """
    parts = text.split("/")
    while parents and parts[0] == ".." and len(parts) > 1:
        parts, parents = parts[1:], parents - 1
    bad_part = any(part in ("", ".", "..") for part in parts)
    bad_sign = any(ord(sign) < 32 or ord(sign) == 127 or sign in '\\:<>"|?*' for sign in text)
    if bad_part or bad_sign or len(text.encode("utf-8", "surrogatepass")) > _MAX_PATH or not _is_unicode(text):
        raise InputError(
            where, expected="a relative path inside the bundle, parts divided by '/'", found=show(repr(text))
        )
    return text


def inside(root: Path, relative: str, where: str) -> Path:
    """The file `root/relative`, refusing one that a symbolic link takes out of `root`."""
    path, home = (root / relative).resolve(), root.resolve()
    if home not in path.parents:
        raise InputError(
            where, expected=f"a file inside {root}", found=f"a link to {path}", todo="replace the link by the file"
        )
    return path


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate from a JSON escape
        return False
    return True
