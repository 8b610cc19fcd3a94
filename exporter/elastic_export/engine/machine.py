"""What a machine may refuse while an engine is built (room on a disk, memory), as errors of ours."""

from __future__ import annotations

from pathlib import Path

from elastic_runtime.errors import NO_ROOM, BuildError, machine_error


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


def build_error(error: Exception) -> BuildError | None:
    """The error a person reads where the machine ended a build; None for any other exception, a fault of ours."""
    if isinstance(error, MemoryError):
        return BuildError(
            "memory",
            expected="enough to build the engine",
            found="none left",
            todo="close other programs, or build where there is more",
        )
    return machine_error(error)
