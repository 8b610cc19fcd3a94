"""Where a bundle grows before anybody sees it: a folder beside the output, on the same file system.

`.<name>.partial-<pid>-<random>` is held by a lock (flock on the folder) that dies with its process. A folder nobody
holds is left over from a killed export and is removed by the next one. The process id is for people to read and decides
nothing: in containers that share a volume every export may be process 1.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from elastic_runtime.errors import ElasticError, InputError
from elastic_runtime.format.manifest_reader import read_manifest


class Stage:
    """A staged folder, locked until `close`.

    Raises:
        InputError: the file system has no locks.
        OSError: the folder cannot be made.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self._made = _make_parents(output.parent)
        try:
            self.path, self._lock = _make_held(output)
        except BaseException:
            self._remove_parents()
            raise
        self.aside = _aside_of(self.path, output)

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
    """Clean up after exports of `output` that were killed: bring back a bundle moved aside, remove partial ones.

    What was moved aside is removed only where it is a bundle and so is what stands at the output: a name alone does not
    tell it from somebody's own backup, and it may be the only whole bundle.

    Raises:
        InputError: there is such a folder, and the file system has no locks that tell whether its export still runs.
    """
    for partial in _partial_folders(output):
        aside = _aside_of(partial, output)
        if (
            aside.is_symlink() or not aside.is_dir() or _is_held(partial)
        ):  # the lock of an export is on its partial folder
            continue
        if not output.exists() or (_is_empty(output) and _is_bundle(aside)):
            say(f"{output}: brought back from {aside.name}, where a killed export had left it")
            aside.rename(output)
        elif _is_bundle(output) and _is_bundle(aside):
            remove(partial)
            with suppress(FileNotFoundError):  # its export, which had published, or another one has just done that
                aside.rename(partial)  # to be removed below: what a kill there leaves has the name of a leftover
        else:
            say(f"{aside}: left alone; it or {output.name} is no bundle")
    for partial in _partial_folders(output):
        lock = hold(partial)
        if lock is not None:
            try:
                say(f"{partial}: removed, left over from a killed export")
                remove(partial)  # held until it is gone: an export that has just made it sees that and makes another
            finally:
                os.close(lock)


def running(output: Path) -> Path | None:
    """The stage of an export of `output` that runs."""
    return next((partial for partial in _partial_folders(output) if _is_held(partial)), None)


def hold(folder: Path) -> int | None:
    """Lock a folder: the descriptor that holds it until closed, None where another process holds it or it is gone.

    Raises:
        InputError: the file system has no locks.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass  # held, or removed by who held it before us
    except OSError as error:
        os.close(descriptor)
        raise InputError(
            f"folder {folder.parent}",
            expected="a file system with locks (flock)",
            found=error.strerror or str(error),
            todo="name an output on another file system, such as a local disk, and move the bundle there afterwards",
        ) from error
    os.close(descriptor)
    return None


def remove(folder: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    while folder.is_dir():
        with suppress(FileNotFoundError):  # another export removes it too: it was the leftover of a published one
            shutil.rmtree(folder)


def _make_held(output: Path) -> tuple[Path, int]:
    while True:
        path = output.with_name(f".{output.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
        path.mkdir()
        try:
            lock = hold(path)
        except BaseException:
            path.rmdir()
            raise
        if lock is not None:
            return path, lock
        # In the moment before the lock another export took it for a leftover, or looked who runs.
        with suppress(OSError):
            path.rmdir()


def _partial_folders(output: Path) -> Iterator[Path]:
    """Where the exports of `output` that run or were killed have or had their stage. The random part must be there: a
    name that ends with a number alone is as likely one with a date in it, made by hand.
    """
    pattern = re.compile(rf"\.{re.escape(output.name)}\.(?:partial|old)-(\d+-[0-9a-f]{{8}})")
    found = [pattern.fullmatch(path.name) for path in output.parent.iterdir()] if output.parent.is_dir() else []
    for suffix in sorted({match[1] for match in found if match}):
        yield output.with_name(f".{output.name}.partial-{suffix}")


def _aside_of(partial: Path, output: Path) -> Path:
    """Where an export moves the old bundle for as long as two renames take."""
    return output.with_name(partial.name.replace(f".{output.name}.partial-", f".{output.name}.old-", 1))


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _is_bundle(folder: Path) -> bool:
    try:
        read_manifest(folder)
    except ElasticError:
        return False
    return True


def _is_held(folder: Path) -> bool:
    lock = hold(folder)
    if lock is not None:
        os.close(lock)
    return lock is None and folder.is_dir()


def _make_parents(folder: Path) -> list[Path]:
    """Create missing parents; return those created, innermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
    return missing
