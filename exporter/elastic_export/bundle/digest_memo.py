"""Digests of large files, remembered in the user's cache: 24 GB of shards need not be read again for every export.

A file is the same while path, device, inode, size and time of change are. Whoever changes bytes and sets the time back
is not noticed, hence `--distrust`; what then ships is a manifest that its own shards contradict, which every consumer
that checks digests refuses.

One small file each, named by the path, so that exports side by side do not undo each other. It is sealed as a manifest
is and appears in one step: a damaged or half one is no memo at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from elastic_export.checkpoint.demo import cache_folder
from elastic_runtime.errors import BuildError
from elastic_runtime.format.seal import EMPTY, is_sealed, seal

SCHEMA = "elastic-digest/1"
_DIGEST = re.compile(rb'"sha256": "([0-9a-f]{64})"')
_SETTLED = 2_000_000_000  # ns: file systems stamp so coarsely that a second change soon after may have the same time


@dataclass(frozen=True)
class FileState:
    """What changes when a file's bytes do. Not ctime: it changes with every hard link, and a bundle makes them."""

    device: int
    inode: int
    size: int
    mtime_ns: int


def state_of(file: Path) -> FileState:
    """The state of a file now; OSError where it cannot be looked at."""
    stat = file.stat()
    return FileState(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


class DigestMemo:
    """Digests by path and state, below `folder`, which appears with the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recall(self, file: Path, state: FileState) -> str | None:
        """The sha256 of a file that was in this state when it was digested; None where nothing sound is remembered."""
        try:
            data = self._place(file).read_bytes()
        except OSError:
            return None
        found = _DIGEST.search(data)
        if found is None or not is_sealed(data):
            return None
        digest = found[1].decode()
        return digest if data == _text(file, state, digest).encode() else None

    def remember(self, file: Path, state: FileState, digest: str, *, begun: int) -> None:
        """Keep a digest, which was computed wholly while the file was in `state`, from `begun` on (ns since the epoch).

        Nothing is kept where that cannot be written, or where the file was so fresh then that its time may not tell of
        a change while it was read. (A file server whose clock is seconds ahead of ours defeats that.)
        """
        if begun - state.mtime_ns < _SETTLED:
            return
        with suppress(OSError):  # the next export reads the file once more
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".", dir=self._folder)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as scratch:
                    scratch.write(_text(file, state, digest))
                Path(name).replace(self._place(file))
            finally:
                Path(name).unlink(missing_ok=True)

    def _place(self, file: Path) -> Path:
        return self._folder / f"{hashlib.sha256(os.fsencode(file)).hexdigest()[:32]}.json"


def user_memo() -> DigestMemo | None:
    """What is remembered of earlier exports; None where there is no home to remember it in."""
    try:
        return DigestMemo(cache_folder(os.environ) / "digests")
    except BuildError:
        return None


def _text(file: Path, state: FileState, digest: str) -> str:
    document = {"schema": SCHEMA, "file": str(file), **asdict(state), "sha256": digest, "seal": EMPTY}
    return seal(json.dumps(document, indent=1) + "\n")
