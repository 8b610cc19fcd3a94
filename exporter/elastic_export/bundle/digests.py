"""Digests of a bundle's files, computed beside the compile: hashing and reading leave Python to the others."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from elastic_export.bundle.digest_memo import DigestMemo, FileState, state_of
from elastic_export.progress import Gauge
from elastic_export.weights.read_ahead import Span, read_ahead
from elastic_runtime.errors import InputError
from elastic_runtime.format.manifest import FileEntry

#: A smaller file is digested sooner than its memo would be worth keeping.
LEAST_REMEMBERED = 64 << 20
_PIECE = 4 << 20
_MOST_THREADS = 4  # what reads faster than four of them can hash is rare


class Digests:
    """Begins digests at once and gives their results when asked for them.

    Args:
        memo: digests of files that have not changed since; None remembers nothing.
        distrust: compute what is remembered again.
    """

    def __init__(self, memo: DigestMemo | None = None, *, distrust: bool = False) -> None:
        self._memo, self._distrust = memo, distrust
        self._pool = ThreadPoolExecutor(_threads(), "digest")
        self._stopped = threading.Event()
        self._sources: dict[Path, FileState] = {}
        self._counting, self._asked, self._done = threading.Lock(), 0, 0

    def gauge(self) -> Gauge:
        """Bytes digested of those that have been asked for so far."""
        return Gauge(self._asked, lambda: self._done)

    def of_source(self, file: Path, relative: str, *, trust: bool) -> Future[FileEntry]:
        """The entry `relative` for a file that others could change: a shard of the checkpoint.

        The result raises InputError where the file changed while it was read.

        Args:
            file: no symbolic link.
            relative: its path in the bundle.
            trust: whether what the memo says of it is believed.
        """
        before = self.watch(file)
        return self._pool.submit(self._source_entry, file, relative, before, trust=trust)

    def of_ours(self, file: Path, relative: str) -> Future[FileEntry]:
        """The entry `relative` for a file that nobody changes any more."""
        return self._pool.submit(lambda: FileEntry(relative, *self._digest(file)))

    def watch(self, file: Path) -> FileState:
        """Have `check_unchanged` compare a file with what it is now."""
        return self._sources.setdefault(file, state_of(file))

    def check_unchanged(self) -> None:
        """Whether all sources are what they were when they were first named. Raises InputError: the one that is not."""
        for file, state in self._sources.items():
            _check_same(file, state)

    def close(self) -> None:
        """End what still runs; results that nobody asked for are lost."""
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    def _source_entry(self, file: Path, relative: str, before: FileState, *, trust: bool) -> FileEntry:
        memo = self._memo if trust and before.size >= LEAST_REMEMBERED else None
        known = memo.recall(file, before) if memo is not None and not self._distrust else None
        if known is not None:
            return FileEntry(relative, before.size, known)
        begun = time.time_ns()
        size, digest = self._digest(file)
        _check_same(file, before)
        if memo is not None:
            memo.remember(file, before, digest, begun=begun)
        return FileEntry(relative, size, digest)

    def _digest(self, file: Path) -> tuple[int, str]:
        with self._counting:
            self._asked += file.stat().st_size
        return streamed_digest(file, on_bytes=self._go_on)

    def _go_on(self, count: int) -> None:
        if self._stopped.is_set():
            raise InterruptedError("nobody waits for the digest any more")
        with self._counting:
            self._done += count


def streamed_digest(file: Path, *, on_bytes: Callable[[int], None]) -> tuple[int, str]:
    """(size, sha256) of a file, read ahead and past the page cache: gigabytes are digested once and not used here.

    Args:
        file: read as far as its size is now.
        on_bytes: hears of every piece.
    """
    size, state = file.stat().st_size, hashlib.sha256()
    spans = (Span(file, at, min(_PIECE, size - at)) for at in range(0, size, _PIECE))
    with closing(read_ahead(spans, past_cache=True)) as pieces:
        for piece in pieces:
            state.update(piece)
            on_bytes(len(piece))
    return size, state.hexdigest()


def entry_at_hand(entry: FileEntry) -> Future[FileEntry]:
    """An entry that is known already, as one that was waited for."""
    future: Future[FileEntry] = Future()
    future.set_result(entry)
    return future


def _check_same(file: Path, before: FileState) -> None:
    try:
        found = "another size or time of change" if state_of(file) != before else ""
    except FileNotFoundError:
        found = "none any more"
    if found:
        todo = "leave the checkpoint alone while it is exported"
        raise InputError(str(file), expected="the file as it was when the export began", found=found, todo=todo)


def _threads() -> int:
    """Two at least: of a file that is not in memory one thread mostly waits for the disk."""
    return max(2, min(_MOST_THREADS, len(os.sched_getaffinity(0))))
