"""Reading parts of files one behind the other, the next ones while one is used."""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from elastic_export.weights.direct import BLOCK, open_direct
from elastic_runtime.errors import InputError

_AHEAD = 4  # spans that are read or wait to be used
_AT_ONCE = 2  # a disk serves two requests in little more than the time of one


@dataclass(frozen=True)
class Span:
    """`size` bytes of a file from `offset` on."""

    file: Path
    offset: int
    size: int

    @property
    def blocks(self) -> slice:
        """The bytes of the file's blocks that it touches."""
        return slice(self.offset // BLOCK * BLOCK, -(-(self.offset + self.size) // BLOCK) * BLOCK)


def read_ahead(spans: Iterable[Span], *, past_cache: bool = False) -> Generator[memoryview, None, None]:
    """The bytes of each span, which stay until the next ones are taken; whoever takes not all of them closes it.

    They are read, not mapped: the disk gets large requests in time, where each page of a mapping would be waited for;
    and of a file that is cut short meanwhile an error tells, where a mapping ends the process (SIGBUS).

    Args:
        spans: of any files.
        past_cache: leave the page cache as it is: what it holds comes from there, all else past it, which spares the
            processor a copy, and others the pages that would have to go. For what is not read again soon.

    Raises:
        InputError: a file cannot be read, or not as far.
    """
    reading, free, files = deque[tuple[mmap.mmap, Future[memoryview]]](), list[mmap.mmap](), dict[Path, _Opened]()

    def taken() -> Iterator[memoryview]:
        buffer, data = reading.popleft()
        yield data.result()
        free.append(buffer)

    with ExitStack() as stack, ThreadPoolExecutor(_AT_ONCE, "read") as pool:
        for span in spans:
            if span.file not in files:
                files[span.file] = stack.enter_context(_Opened(span.file, past_cache=past_cache))
            size = span.blocks.stop - span.blocks.start
            buffer = free.pop() if free else mmap.mmap(-1, size)
            if len(buffer) < size:
                buffer = mmap.mmap(-1, size)
            reading.append((buffer, pool.submit(files[span.file].read, span, buffer)))
            if len(reading) > _AHEAD:
                yield from taken()
        while reading:
            yield from taken()


class _Opened:
    """A file open for reading, in one way or in both."""

    def __init__(self, file: Path, *, past_cache: bool) -> None:
        self._file, self._descriptors = file, list[int]()
        try:
            self._descriptors.append(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
            if past_cache:
                # Or each look at the page cache would bring blocks there that nobody asked for.
                os.posix_fadvise(self._descriptors[0], 0, 0, os.POSIX_FADV_RANDOM)
                self._descriptors.append(open_direct(file, os.O_RDONLY))
        except OSError as error:
            self.__exit__()
            raise _unreadable(file, error) from None

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def read(self, span: Span, buffer: mmap.mmap) -> memoryview:
        """The bytes of a span, in a buffer of whole blocks."""
        plain, way = self._descriptors[0], self._descriptors[-1]
        if way != plain and _in_cache(plain, span):
            way = plain
        # Whole blocks, as past the cache nothing else can be read; the file may end before the last one does.
        begin = span.blocks.start
        data, lead, done = memoryview(buffer)[: span.blocks.stop - begin], span.offset - begin, 0
        while done < lead + span.size:
            try:
                count = os.preadv(way, [data[done:]], begin + done)
            except OSError as error:
                if way == plain or error.errno != errno.EINVAL:
                    raise _unreadable(span.file, error) from None
                way = plain  # the system wants larger blocks, or something else of them
                continue
            if not count:
                raise _shrunk(span, begin + done)
            done += count
        return data[lead : lead + span.size]


def _in_cache(descriptor: int, span: Span) -> bool:
    """Whether the page cache holds a block of the span: any one, or the blocks that this brings there would tell the
    next one that asks that all are. A disk that answers at once brings it before this ends: that span is then read as
    any other.
    """
    at = span.offset + random.randrange(0, span.size, BLOCK)
    try:
        return os.preadv(descriptor, [bytearray(1)], at, getattr(os, "RWF_NOWAIT", 0)) == 1
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system that cannot say, and is read as any other


def _shrunk(span: Span, size: int) -> InputError:
    return InputError(
        str(span.file),
        expected=f"{span.offset + span.size} bytes",
        found=f"{size}: it shrank since it was opened",
        todo="leave the file alone while it is read",
    )


def _unreadable(file: Path, error: OSError) -> InputError:
    todo = "look at the disk that holds it"
    return InputError(str(file), expected="a file that can be read", found=error.strerror or str(error), todo=todo)
