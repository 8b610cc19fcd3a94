"""Digests of a bundle's files, computed beside the compile: those of large files in processes of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from elastic_export.bundle.digest_memo import DigestMemo, FileState, state_of, user_memo
from elastic_export.bundle.digest_process import digest_apart
from elastic_export.plan.machine import processors
from elastic_export.progress import Gauge
from elastic_export.weights.streamed_digest import streamed_digest
from elastic_runtime.errors import InputError
from elastic_runtime.format.manifest import FileEntry

#: A smaller file is digested sooner than its memo would be worth keeping.
LEAST_REMEMBERED = 64 << 20
#: A smaller file is digested sooner than a process has begun.
LEAST_APART = 64 << 20
_MOST_THREADS = 4  # what reads faster than four of them can hash is rare


class Digests:
    """Begins digests at once and gives their results when asked for them; a file of others is read once.

        with Digests() as digests:
            digests.begin(shards)  # what reads them has yet to be imported
            digests.of_source(shards[0], "weights/model.safetensors", trust=True).result()

    Args:
        memo: digests of files that have not changed since; None remembers nothing.
        distrust: compute what is remembered again.
    """

    def __init__(self, memo: DigestMemo | None = None, *, distrust: bool = False) -> None:
        self._memo, self._distrust = memo, distrust
        self._pool = ThreadPoolExecutor(_threads(), "digest")
        self._stopped = threading.Event()
        self._sources: dict[Path, FileState] = {}
        self._read: dict[tuple[Path, bool], Future[tuple[int, str]]] = {}
        self._counting, self._asked, self._done = threading.Lock(), 0, 0

    def __enter__(self) -> Digests:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, files: Iterable[Path]) -> None:
        """Begin the digests of files that others could change, of which `of_source` will be asked."""
        for file in files:
            self._of_source(file.resolve(strict=True), trust=True)

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
        return _entry(relative, self._of_source(file, trust=trust))

    def remembers(self, file: Path) -> bool:
        """Whether `of_source` need not read a file (no symbolic link) where what is remembered is believed."""
        state = state_of(file)
        memo = None if self._distrust or state.size < LEAST_REMEMBERED else self._memo
        return memo is not None and memo.recall(file, state) is not None

    def of_ours(self, file: Path, relative: str) -> Future[FileEntry]:
        """The entry `relative` for a file that nobody changes any more."""
        return _entry(relative, self._pool.submit(self._digest, file))

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

    def _of_source(self, file: Path, *, trust: bool) -> Future[tuple[int, str]]:
        before = self.watch(file)
        if (file, trust) not in self._read:
            self._read[file, trust] = self._pool.submit(self._source_digest, file, before, trust=trust)
        return self._read[file, trust]

    def _source_digest(self, file: Path, before: FileState, *, trust: bool) -> tuple[int, str]:
        memo = self._memo if trust and before.size >= LEAST_REMEMBERED else None
        known = memo.recall(file, before) if memo is not None and not self._distrust else None
        if known is not None:
            return before.size, known
        begun = time.time_ns()
        size, digest = self._digest(file)
        _check_same(file, before)
        if memo is not None:
            memo.remember(file, before, digest, begun=begun)
        return size, digest

    def _digest(self, file: Path) -> tuple[int, str]:
        size = file.stat().st_size
        with self._counting:
            self._asked += size
        digest = digest_apart if size >= LEAST_APART else streamed_digest
        return digest(file, on_bytes=self._go_on)

    def _go_on(self, count: int) -> None:
        if self._stopped.is_set():
            raise InterruptedError("nobody waits for the digest any more")
        with self._counting:
            self._done += count


def remembering_digests(*, distrust: bool) -> Digests:
    """Digests that know what earlier exports of this user have read."""
    return Digests(user_memo(), distrust=distrust)


def _entry(relative: str, digest: Future[tuple[int, str]]) -> Future[FileEntry]:
    """The entry `relative` for a file whose size and digest are computed."""
    entry: Future[FileEntry] = Future()

    def done(_: Future[tuple[int, str]]) -> None:
        if digest.cancelled():
            entry.cancel()
        elif (error := digest.exception()) is not None:
            entry.set_exception(error)
        else:
            entry.set_result(FileEntry(relative, *digest.result()))

    digest.add_done_callback(done)
    return entry


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
    return max(2, min(_MOST_THREADS, processors()))
