"""Work that outlives an export which does not end: large files beside the bundle, taken up by the next one.

`.<name>.<what>` is held by a lock that dies with its process. Where another export holds it, the work is done in the
stage instead, and lost with it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from elastic_export.bundle.staging import hold


class Unfinished:
    """A folder beside `output`, locked until `close`; on the file system of the bundle, so that its files are linked.

    Attributes:
        path: the folder.
        in_stage: whether it is one inside the stage.

    Raises:
        InputError: the file system has no locks.
        OSError: the folder cannot be made.
    """

    def __init__(self, output: Path, what: str, stage: Path) -> None:
        self.path = output.with_name(f".{output.name}.{what}")
        self.path.mkdir(exist_ok=True)
        self._lock = hold(self.path)
        self._files, self.in_stage = set[Path](), self._lock is None
        if self.in_stage:
            self.path = stage / f".{what}"
            self.path.mkdir(exist_ok=True)

    def took(self, file: Path) -> None:
        """A file of the folder has become one of the bundle."""
        self._files.add(file)

    def done(self) -> None:
        """The bundle is published, or has all that is needed: remove what it has taken, and the folder if that was all.

        What else lies there is left alone.
        """
        for file in self._files:
            file.unlink(missing_ok=True)
        with suppress(OSError):  # something of somebody's
            self.path.rmdir()

    def close(self) -> None:
        """Let go of the lock; what is there stays for the next export."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
