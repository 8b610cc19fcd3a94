"""Where a bundle grows before anybody sees it: a folder beside the output, on the same file system.

`.<name>.partial-<pid>` is held by a lock (flock on the folder) that dies with its process. A folder nobody holds is
left over from a killed export and is removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_FRESH_SECONDS = 60.0  # a folder of a running process may not have its lock yet


class Stage:
    """A staged folder, locked until `close`."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(f".{output.name}.partial-{os.getpid()}")
        self.aside = output.with_name(f".{output.name}.old-{os.getpid()}")
        self._made = _make_parents(output.parent)
        try:
            self.path.mkdir()
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except BaseException:
            self._remove_parents()
            raise
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Remove what is at the stage's path (a failed bundle, or the one it replaced) and let go of the lock."""
        remove(self.path)
        self._remove_parents()
        os.close(self._lock)

    def _remove_parents(self) -> None:
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:  # it holds the bundle
                return


def recover(output: Path, say: Callable[[str], None]) -> None:
    """Clean up after exports of `output` that were killed: bring back a bundle moved aside, remove partial ones."""
    for folder in _leftovers(output, "old"):
        if output.exists():
            remove(folder)
        else:
            say(f"{output}: brought back from {folder.name}, where a killed export had left it")
            folder.rename(output)
    for folder in _leftovers(output, "partial"):
        say(f"{folder}: removed, left over from a killed export")
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    if folder.is_dir():
        shutil.rmtree(folder)


def _leftovers(output: Path, kind: str) -> Iterator[Path]:
    pattern = re.compile(rf"\.{re.escape(output.name)}\.{kind}-(\d+)")
    for folder in sorted(output.parent.iterdir()) if output.parent.is_dir() else ():
        match = pattern.fullmatch(folder.name)
        if match and folder.is_dir() and _abandoned(folder, int(match[1])):
            yield folder


def _abandoned(folder: Path, pid: int) -> bool:
    """Whether no process holds the folder. The process id alone says too little: ids repeat, and differ by
    container.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    # A container's exports often have one process id: a folder of our own id that we have not locked is an older one's.
    return pid == os.getpid() or not _alive(pid) or time.time() - folder.stat().st_mtime > _FRESH_SECONDS


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _make_parents(folder: Path) -> list[Path]:
    """Create missing parents; return those created, innermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
    return missing
