"""What a machine may refuse while an engine is built (room on a disk, memory), as errors of ours."""

from __future__ import annotations

import errno
from pathlib import Path

from elastic_runtime.errors import BuildError

#: A full disk, a full quota, a file above the largest size that is allowed.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole. An OSError names it: a failed write says which disk is full, not only that one is."""
    try:
        path.write_bytes(data)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def is_no_room(error: BaseException) -> bool:
    """Whether there was no room to write."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


def build_error(error: Exception) -> BuildError:
    """The error a person reads for whatever ended a build."""
    if isinstance(error, OSError) and is_no_room(error):
        return no_room(str(error.filename or "the disk"), error.strerror or str(error))
    if isinstance(error, MemoryError):
        return BuildError(
            "memory",
            expected="enough to build the engine",
            found="none left",
            todo="close other programs, or build where there is more",
        )
    return BuildError(
        "the engine build", expected="an engine or a named error", found=f"{type(error).__name__}: {error}"
    )


def no_room(file: str, found: str) -> BuildError:
    """The error of a disk that is full."""
    return BuildError(file, expected="room to write", found=found, todo="free some space there")
