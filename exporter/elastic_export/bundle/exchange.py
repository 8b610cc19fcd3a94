"""One step that makes a finished folder the one everybody sees, and the flushes that make it last."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def publish(stage: Path, output: Path, aside: Path, say: Callable[[str], None]) -> None:
    """Put `stage` in the place of `output`; what stood there is at `stage` or gone afterwards.

    An absent output takes one rename, an existing one renameat2(RENAME_EXCHANGE): at no moment is there none or half a
    one. A file system without the exchange takes two renames by way of `aside`, and `say` hears of it. Between them
    the old folder is whole at `aside`: if the second fails it is put back at once, if the process is killed there
    `staging.recover` brings it back.

    Raises:
        OSError: a rename failed; `output` is as it was (else `say` tells where it is).
    """
    if not output.exists():
        stage.rename(output)
    elif not _exchange(stage, output):
        say(f"{output}: this file system cannot exchange folders in one step; moving the old one aside first")
        _exchange_by_renames(stage, output, aside, say)
    flush_folder(output.parent)


def _exchange_by_renames(stage: Path, output: Path, aside: Path, say: Callable[[str], None]) -> None:
    try:
        output.rename(aside)
        stage.rename(output)
    except BaseException:  # an interrupt too
        if aside.exists() and not output.exists():
            try:
                aside.rename(output)
            except OSError:
                say(f"{output}: the old bundle is at {aside}; the next export to this place brings it back")
        raise
    with suppress(OSError):  # the new one is published: an old one that stays aside is the next export's to remove
        aside.rename(stage)


def flush_tree(folder: Path) -> None:
    """Bring what was written below `folder` to the disk; of files that are there already this costs next to nothing."""
    for path, _, names in os.walk(folder):
        for name in names:
            _flush(Path(path, name), os.O_RDONLY)
        flush_folder(Path(path))


def flush_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk."""
    _flush(folder, os.O_RDONLY | os.O_DIRECTORY)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two paths atomically; False where kernel, libc or file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(second))
