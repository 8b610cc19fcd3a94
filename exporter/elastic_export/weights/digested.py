"""Writing a large file whose digest is known when it is written."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from elastic_export.weights.direct import BLOCK, end_direct, open_direct

BUFFER_BYTES = 8 << 20  # written and digested at a time, while the processor's caches still hold them
_BUFFERS = 4  # one is filled, one written, one digested; one more evens out their pace


class DigestedFile:
    """A new file, appended to in pieces, which threads write and digest while the next ones are made.

        with DigestedFile(path) as out:
            out.room(5)[:] = b"bytes"
        out.digest

    Bytes go from our buffers to the disk, past the page cache, where the file system can do that (O_DIRECT): finding
    pages for gigabytes, filling and clearing them costs more than digesting the bytes, and drives out of memory what
    will be read again, the parent. Errors of the system (OSError) come from `room` or the end of the `with` statement.

    Attributes:
        digest: the sha256 in hex, once the file is complete.
    """

    def __init__(self, path: Path) -> None:
        self.digest = ""
        self._descriptor = open_direct(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._state = hashlib.sha256()
        self._pools = ThreadPoolExecutor(1, "write"), ThreadPoolExecutor(1, "digest")
        self._busy = deque[tuple[mmap.mmap, list[Future[None]]]]()
        self._buffer, self._used = mmap.mmap(-1, BUFFER_BYTES), 0
        self._at = 0  # where in the file the buffer begins

    def __enter__(self) -> DigestedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._hand_on(self._used)
                while self._busy:
                    self._finished()
                self.digest = self._state.hexdigest()
        finally:
            for pool in self._pools:
                pool.shutdown(cancel_futures=True)
            os.close(self._descriptor)

    def room(self, size: int) -> memoryview:
        """The next `size` bytes of the file, to be filled before the next call."""
        if self._used + size > len(self._buffer):
            self._next_buffer(size)
        self._used += size
        return memoryview(self._buffer)[self._used - size : self._used]

    def _next_buffer(self, size: int) -> None:
        """Hand on what the buffer holds but for the last, broken block, which begins the next buffer."""
        whole = self._used // BLOCK * BLOCK
        rest = self._buffer[whole : self._used]
        self._hand_on(whole)
        free = self._finished() if len(self._busy) >= _BUFFERS else None
        least = len(rest) + size
        self._buffer = free if free and len(free) >= least else mmap.mmap(-1, max(least, BUFFER_BYTES))
        self._buffer[: len(rest)] = rest
        self._at, self._used = self._at + whole, len(rest)

    def _hand_on(self, size: int) -> None:
        data, (writer, digester) = memoryview(self._buffer)[:size], self._pools
        self._busy.append(
            (self._buffer, [writer.submit(self._write, data, self._at), digester.submit(self._state.update, data)])
        )

    def _finished(self) -> mmap.mmap:
        """The buffer that is done with first."""
        buffer, works = self._busy.popleft()
        for work in works:
            work.result()
        return buffer

    def _write(self, data: memoryview, at: int) -> None:
        while data:
            try:
                count = os.pwrite(self._descriptor, data, at)
            except OSError as error:
                if not end_direct(self._descriptor, error):
                    raise
            else:
                data, at = data[count:], at + count
