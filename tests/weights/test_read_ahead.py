"""Spans of files read ahead: their bytes in order, bounded memory, and files that cannot be read."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.weights import read_ahead as module
from elastic_export.weights.direct import BLOCK
from elastic_export.weights.read_ahead import Span, read_ahead
from elastic_runtime.errors import InputError

BYTES = bytes(range(256)) * 20
SPANS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 5000)).flatmap(
        lambda pair: st.integers(1, len(BYTES) - pair[1]).map(lambda size: (*pair, size))
    ),
    max_size=20,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_bytes(BYTES)
    return path


@given(SPANS, st.booleans())
def test_every_span_in_its_turn(spans: list[tuple[str, int, int]], past_cache: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        contents = {"a": BYTES, "b": BYTES[::-1]}
        for name, content in contents.items():
            (Path(folder) / name).write_bytes(content)
        asked = [Span(Path(folder) / name, offset, size) for name, offset, size in spans]
        assert [bytes(data) for data in read_ahead(asked, past_cache=past_cache)] == [
            contents[n][o : o + s] for n, o, s in spans
        ]


def test_what_was_taken_stays_until_the_next_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also once the threads have read all that they may."""
    reads, real = threading.Semaphore(0), os.preadv

    def counted(descriptor: int, buffers: list[memoryview], at: int) -> int:
        count = real(descriptor, buffers, at)
        reads.release()
        return count

    monkeypatch.setattr(module.os, "preadv", counted)
    taken = read_ahead(Span(file, 100 * i, 100) for i in range(40))
    for i in range(10):
        data = next(taken)
        for _ in range(5 if i == 0 else 1):
            reads.acquire(timeout=10)
        assert bytes(data) == BYTES[100 * i : 100 * i + 100]
    taken.close()


def test_few_buffers_serve_many_spans(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = module.mmap.mmap, list[int]()

    def counted(descriptor: int, size: int) -> object:
        made.append(size)
        return real(descriptor, size)

    monkeypatch.setattr(module.mmap, "mmap", counted)
    assert sum(len(data) for data in read_ahead(Span(file, 7 * i, 50) for i in range(200))) == 10_000
    assert len(made) <= 6


def test_short_reads_go_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(module.os, "preadv", lambda file, buffers, at: real(file, [buffers[0][:7]], at))
    assert [bytes(data) for data in read_ahead([Span(file, 3, 100)])] == [BYTES[3:103]]


@pytest.mark.parametrize("past_cache", [False, True])
def test_a_file_that_shrank(file: Path, *, past_cache: bool) -> None:
    def spans() -> Iterator[Span]:
        yield Span(file, 0, 100)
        os.truncate(file, 4150)
        yield Span(file, 4100, 96)

    with pytest.raises(InputError, match=r"f: expected 4196 bytes, found 4150: it shrank .*\. Leave the file alone"):
        list(read_ahead(spans(), past_cache=past_cache))


def blocks_in_memory(file: Path) -> int:
    """How many blocks of a file the page cache holds: asked so that none is brought there."""
    size = file.stat().st_size
    told = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), size) as mapped:
        begin = ctypes.addressof(ctypes.c_ubyte.from_buffer(mapped))
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(begin), ctypes.c_size_t(size), told) == 0
    return sum(block & 1 for block in told)


def drop(file: Path) -> None:
    """Out of the page cache, and all of it: blocks that the system has in hand elsewhere stay at a first try."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        for _ in range(50):
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if not blocks_in_memory(file):
                return
            time.sleep(0.1)
    pytest.skip("a file system that keeps files in memory")


@dataclass
class Ways:
    """What the looks into the page cache found, and whether the reads after them went past it."""

    held: list[bool] = field(default_factory=list)
    direct: list[bool] = field(default_factory=list)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    found, real = Ways(), os.preadv

    def noted(descriptor: int, buffers: list[memoryview], at: int, *flags: int) -> int:
        if not flags:
            found.direct.append(bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT))
            return real(descriptor, buffers, at)
        found.held.append(False)
        count = real(descriptor, buffers, at, *flags)
        found.held[-1] = True
        return count

    monkeypatch.setattr(module.os, "preadv", noted)
    monkeypatch.setattr(module, "_AT_ONCE", 1)  # in order
    return found


def test_what_the_page_cache_holds_comes_from_there_and_the_rest_past_it(tmp_path: Path, ways: Ways) -> None:
    file, spans = tmp_path / "f", [Span(tmp_path / "f", at, 1 << 16) for at in range(0, 1 << 20, 1 << 16)]
    file.write_bytes(BYTES * 300)
    list(read_ahead(spans, past_cache=True))
    assert (ways.held, ways.direct) == ([True] * 16, [False] * 16)  # just written
    for _ in range(20):
        drop(file)
        for _ in range(2):
            ways.held.clear()
            ways.direct.clear()
            held = blocks_in_memory(file)
            list(read_ahead(spans, past_cache=True))
            assert ways.direct == [not found for found in ways.held]
            # A look brings the one block there that it asks for, and finds it if the disk answers before the look ends.
            assert blocks_in_memory(file) - held <= 16 * (1 + ways.held.count(True))
        if any(ways.direct):  # the blocks that the first looks brought there do not speak for all
            break
    else:
        pytest.skip("a disk that always answers within a look")
    ways.direct.clear()
    list(read_ahead(spans))
    assert ways.direct == [False] * 16


def test_a_file_system_that_cannot_say_what_it_holds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv

    def without(descriptor: int, buffers: list[memoryview], at: int, *flags: int) -> int:
        if flags:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(descriptor, buffers, at)

    monkeypatch.setattr(module.os, "preadv", without)
    assert [bytes(data) for data in read_ahead([Span(file, 0, 5000)], past_cache=True)] == [BYTES[:5000]]


def test_a_file_system_that_wants_larger_blocks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = os.preadv, []

    def read(descriptor: int, buffers: list[memoryview], at: int, *flags: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            refused.append(at)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, buffers, at, *flags)

    monkeypatch.setattr(module.os, "preadv", read)
    monkeypatch.setattr(module, "_in_cache", lambda *_: False)
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    spans = [Span(file, 0, 100), Span(file, BLOCK, 100)]
    assert [bytes(data) for data in read_ahead(spans, past_cache=True)] == [BYTES[:100], BYTES[BLOCK : BLOCK + 100]]
    assert refused == [0, BLOCK]


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none: expected a file that can be read, found No such file or directory"):
        list(read_ahead([Span(tmp_path / "none", 0, 1)]))


def test_a_disk_that_fails(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module.os, "preadv", failed)
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(InputError, match=r"f: expected a file that can be read, found Input/output error\. Look at"):
        list(read_ahead(Span(file, i, 1) for i in range(20)))
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, files)


def test_whoever_stops_early_leaves_neither_threads_nor_open_files(file: Path) -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    taken = read_ahead(Span(file, i, 1) for i in range(100))
    next(taken)
    taken.close()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, files)
