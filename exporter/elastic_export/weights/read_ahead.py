"""Reading parts of files one behind the other, the next ones while one is used."""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from elastic_runtime.errors import InputError

_AHEAD = 4  # spans that are read or wait to be used
_AT_ONCE = 2  # a disk serves two requests in little more than the time of one


@dataclass(frozen=True)
class Span:
    """`size` bytes of a file from `offset` on."""

    file: Path
    offset: int
    size: int


def read_ahead(spans: Iterable[Span]) -> Generator[memoryview, None, None]:
    """The bytes of each span, which stay until the next ones are taken; whoever takes not all of them closes it.

    They are read, not mapped: the disk gets large requests in time, where each page of a mapping would be waited for;
    and of a file that is cut short meanwhile an error tells, where a mapping ends the process (SIGBUS).

    Raises:
        InputError: a file cannot be read, or not as far.
    """
    reading, free, files = deque[tuple[mmap.mmap, Future[memoryview]]](), list[mmap.mmap](), dict[Path, int]()

    def taken() -> Iterator[memoryview]:
        buffer, data = reading.popleft()
        yield data.result()
        free.append(buffer)

    with ExitStack() as stack, ThreadPoolExecutor(_AT_ONCE, "read") as pool:
        for span in spans:
            if span.file not in files:
                files[span.file] = _open(span.file)
                stack.callback(os.close, files[span.file])
            buffer = free.pop() if free else mmap.mmap(-1, span.size)
            if len(buffer) < span.size:
                buffer = mmap.mmap(-1, span.size)
            reading.append((buffer, pool.submit(_read, files[span.file], span, buffer)))
            if len(reading) > _AHEAD:
                yield from taken()
        while reading:
            yield from taken()


def _open(file: Path) -> int:
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(file, error) from None


def _read(descriptor: int, span: Span, buffer: mmap.mmap) -> memoryview:
    data = memoryview(buffer)[: span.size]
    done = 0
    while done < span.size:
        try:
            count = os.preadv(descriptor, [data[done:]], span.offset + done)
        except OSError as error:
            raise _unreadable(span.file, error) from None
        if not count:
            expected, found = f"{span.offset + span.size} bytes", f"{span.offset + done}: it shrank since it was opened"
            todo = "leave the file alone while it is read"
            raise InputError(str(span.file), expected=expected, found=found, todo=todo)
        done += count
    return data


def _unreadable(file: Path, error: OSError) -> InputError:
    todo = "look at the disk that holds it"
    return InputError(str(file), expected="a file that can be read", found=error.strerror or str(error), todo=todo)
