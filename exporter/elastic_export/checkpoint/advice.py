"""What to do about an error of a general reader, which cannot know what its file is for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from elastic_runtime.errors import InputError


@contextmanager
def advised(todo: str) -> Iterator[None]:
    """Give an InputError raised in the block this advice, unless it has its own."""
    try:
        yield
    except InputError as error:
        if error.todo:
            raise
        raise InputError(error.subject, expected=error.expected, found=error.found, todo=todo) from error
