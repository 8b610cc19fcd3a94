"""Names that a bundle can hold: of a checkpoint's folder, and of its files that are carried along."""

from __future__ import annotations

import os

from elastic_runtime.errors import InputError, advised
from elastic_runtime.format.paths import check_file_name


def check_utf8(subject: str, name: str, expected: str, todo: str) -> None:
    """Whether a name is text that JSON, ONNX and the builder can hold. The system's names are bytes; those that the
    locale does not read Python keeps as lone surrogates, or it reads bytes of UTF-8 as other letters.

    Raises:
        InputError: it is not; with `todo`, or where the locale is why, to name another.
    """
    utf8 = "set one of UTF-8: export LC_ALL=C.UTF-8"
    try:
        data = os.fsencode(name)
        if data.decode() == name:
            return
        found, todo = f"a locale that reads {data.decode()!r} otherwise", utf8
    except UnicodeDecodeError:
        found = repr(name)
    except UnicodeEncodeError:  # a name of an index, whose reader lets no lone surrogate through
        found, todo = f"a locale that cannot write {name!a}", utf8
    raise InputError(subject, expected=expected, found=found, todo=todo)


def check_carried(subject: str, name: str, todo: str) -> None:
    """Whether a manifest can list a file of that name. Raises InputError."""
    check_utf8(subject, name, "a file name in UTF-8", todo)
    with advised(todo):
        check_file_name(name, subject)
