"""Builds that are kept from one test run to the next, while there are the sources that they are of."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "elastic_plugins_"


@contextmanager
def claimed(parent: Path, digest: str) -> Iterator[Path]:
    """The folder in `parent` of what a digest says it is made of; nobody removes it while the context lasts.

    The folders of other digests are removed, but for those that somebody has claimed: a run from before the last edit,
    workers of pytest-xdist.
    """
    folder = parent / f"{PREFIX}{digest}"
    with (parent / f"{PREFIX}lock").open("w") as gate:  # or one could be removed between its making and its claim
        fcntl.flock(gate, fcntl.LOCK_EX)
        folder.mkdir(exist_ok=True)
        claim = (folder / "claim").open("w")
        fcntl.flock(claim, fcntl.LOCK_SH)
        for other in parent.glob(f"{PREFIX}*/"):
            if other != folder:
                _remove_unclaimed(other)
    with claim:
        yield folder


def _remove_unclaimed(folder: Path) -> None:
    with (folder / "claim").open("w") as claim:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(folder)
