"""Exports of one output take turns: between the last look at what stands there and its exchange nobody else publishes.

The turn is a folder beside the output, `.<name>.publishing`, held by a lock that dies with its process and removed by
whoever had it. The folder around the output would be no place for the lock: a user may hold it (`flock DIR command`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from elastic_export.bundle.beside import turn_folder
from elastic_export.bundle.staging import hold
from elastic_runtime.errors import BuildError

_PATIENCE = 600.0  # seconds: the flush of a folder may wait for all that others write to the disk
_PAUSE = 0.02


@contextmanager
def turn(output: Path) -> Iterator[None]:
    """Nobody else is in such a block for that output.

    Raises:
        BuildError: another export has the turn and does not end.
    """
    folder = turn_folder(output)
    lock = _wait_for(folder)
    try:
        yield
    finally:
        _give_up(folder, lock)


def forget_turn(output: Path) -> None:
    """Remove what an export that was killed in its turn left."""
    folder = turn_folder(output)
    lock = hold(folder) if folder.is_dir() else None
    if lock is not None:
        _give_up(folder, lock)


def _wait_for(folder: Path) -> int:
    end = time.monotonic() + _PATIENCE
    while True:
        with suppress(FileExistsError):  # not exist_ok, which asks once more: whoever has the turn may end it meanwhile
            folder.mkdir()
        lock = hold(folder)
        if lock is not None:
            return lock
        if time.monotonic() > end:
            found = f"another export that has had it for {_PATIENCE:.0f} s"
            todo = "end that export, and run this one again"
            raise BuildError(str(folder), expected="its turn to publish", found=found, todo=todo)
        time.sleep(_PAUSE)


def _give_up(folder: Path, lock: int) -> None:
    with suppress(OSError):  # something of somebody's is in it
        folder.rmdir()
    os.close(lock)
