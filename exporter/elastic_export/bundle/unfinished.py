"""Work that outlives an export which does not end: large files beside the bundle, taken up by the next one.

`.<name>.<what>` is held by a lock that dies with its process. Where another export holds it, the work is done in the
stage instead, and lost with it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from elastic_export.bundle.beside import work_folder
from elastic_export.bundle.place import duplicate
from elastic_export.bundle.staging import hold
from elastic_export.plan.fit_table import size_text
from elastic_export.weights.quantised import PREFIX, UNFINISHED, left_in


class Unfinished:
    """The folders of such work beside one bundle, locked until `close`; on its file system, so that files are linked.

    Args:
        output: the bundle's folder.
        stage: where it grows.
    """

    def __init__(self, output: Path, stage: Path) -> None:
        self._output, self._stage = output, stage
        self._folders: dict[str, tuple[Path, int | None]] = {}
        self._spent = set[Path]()

    def folder(self, what: str) -> Path:
        """The folder of the work of that name, made if need be.

        Raises:
            InputError: the file system has no locks.
            OSError: the folder cannot be made.
        """
        if what not in self._folders:
            path = work_folder(self._output, what)
            path.mkdir(exist_ok=True)
            lock = hold(path)
            if lock is None:
                path = self._stage / f".{what}"
                path.mkdir()
            self._folders[what] = path, lock
        return self._folders[what][0]

    def left(self, what: str) -> Path | None:
        """That folder where there is one, None where no export left any. Raises as `folder` does."""
        return self.folder(what) if work_folder(self._output, what).is_dir() else None

    def take(self, file: Path, target: Path) -> None:
        """Make `target`, in the stage, the same bytes as a file of such a folder, and spend that."""
        duplicate(file, target)
        self.spend(file)

    def spend(self, file: Path) -> None:
        """A file of such a folder is not needed for longer than until the bundle is published."""
        self._spent.add(file)

    def clear(self, *, published: bool) -> None:
        """Remove what was spent and the folders it lay in: those in the stage before the bundle is `published`, which
        must not hold them, the others after. What else lies there is left alone.
        """
        for path, lock in self._folders.values():
            if (lock is not None) == published:
                for file in (file for file in self._spent if file.parent == path):
                    file.unlink(missing_ok=True)
                with suppress(OSError):  # something of somebody's
                    path.rmdir()

    def close(self) -> bool:
        """Let go of the locks; what is there stays for the next export. Returns whether any folder was worked in."""
        worked = bool(self._folders)
        for _, lock in self._folders.values():
            if lock is not None:
                os.close(lock)
        self._folders.clear()
        return worked


def tell_what_is_left(output: Path, say: Callable[[str], None]) -> None:
    """For an export that quantises nothing, or fails: what one that ended has left there may have the size of a model.

    It stays, as hours of work may be in it. What another export works on is not told.
    """
    folder, sizes = work_folder(output, UNFINISHED), list[int]()
    with suppress(OSError):  # of a folder that we may not look into; nobody asked for this
        lock = hold(folder) if folder.is_dir() else None
        if lock is not None:
            os.close(lock)
            sizes = [file.stat().st_size for file in left_in(folder)]
    if sizes:
        what = f"{size_text(sum(sizes))} of an export that did not end"
        todo = (
            f"the next one that quantises takes up or removes it; to do so now: rm {shlex.quote(str(folder))}/{PREFIX}*"
        )
        say(f"{folder}: {what}; {todo}")
