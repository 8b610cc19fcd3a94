"""Files read and written past the page cache (O_DIRECT), where their file system can do that."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

BLOCK = 4096  # direct reads and writes begin and end at multiples of it, in the file and in memory
_DIRECT = getattr(os, "O_DIRECT", 0)


def open_direct(path: Path, flags: int) -> int:
    """A descriptor past the page cache, or an ordinary one: of a file system in memory, say. Raises OSError."""
    flags |= os.O_CLOEXEC
    try:
        return os.open(path, flags | _DIRECT, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags, 0o666)


def end_direct(descriptor: int, error: OSError) -> bool:
    """Make a descriptor an ordinary one if `error` was about the place or size of a direct read or write: that of the
    file's last, broken block, or the system wants larger blocks. False where it was not.
    """
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if error.errno != errno.EINVAL or not flags & _DIRECT:
        return False
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
    return True
