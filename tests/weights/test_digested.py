"""Files digested while they are written: their bytes, whatever the file system can do, and what fails."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.weights import digested as module
from elastic_export.weights import direct
from elastic_export.weights.digested import DigestedFile

DIRECT = os.O_DIRECT
#: Sizes of pieces around those at which a buffer, and a block of the disk, ends.
SIZES = st.lists(st.one_of(st.integers(0, 300), st.sampled_from([4095, 4096, 4097, 8192, 12288, 30_000])), max_size=20)


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER_BYTES", 8192)


def write(path: Path, sizes: list[int]) -> bytes:
    """Pieces that all differ, and what the file must hold then."""
    expected = b""
    with DigestedFile(path) as out:
        for i, size in enumerate(sizes):
            piece = (i.to_bytes(2, "little") * size)[:size]
            out.room(size)[:] = piece
            expected += piece
    assert path.read_bytes() == expected
    assert out.digest == hashlib.sha256(expected).hexdigest()
    return expected


@given(SIZES)
def test_the_file_is_its_pieces_and_the_digest_is_its_own(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "f", sizes)


def test_an_older_file_of_that_name_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100_000)
    write(tmp_path / "f", [10])


def test_a_file_system_that_opens_nothing_for_direct_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = os.open, []

    def opened(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & DIRECT:
            refused.append(path)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, mode)

    monkeypatch.setattr(direct.os, "open", opened)
    write(tmp_path / "f", [3000] * 20)
    assert refused == [tmp_path / "f"]


def test_a_file_system_that_wants_larger_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = os.pwrite, []

    def written(descriptor: int, data: memoryview, at: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & DIRECT and (len(data) % 65536 or at % 65536):
            refused.append(at)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, data, at)

    monkeypatch.setattr(module.os, "pwrite", written)
    write(tmp_path / "f", [3000] * 20)
    assert refused == [0]  # one is enough to know


def test_a_write_that_takes_less_than_it_was_given_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(module.os, "pwrite", lambda file, data, at: real(file, data[: max(1, len(data) // 2)], at))
    write(tmp_path / "f", [3000] * 20)


@pytest.mark.parametrize("good", [0, 1, 3])
@pytest.mark.parametrize("pieces", [2, 40])
def test_what_the_disk_refuses_is_told_and_nothing_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: int, pieces: int
) -> None:
    real, done = os.pwrite, []

    def full(descriptor: int, data: memoryview, at: int) -> int:
        if len(done) >= good * (pieces // 10):
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(at)
        return real(descriptor, data, at)

    monkeypatch.setattr(module.os, "pwrite", full)
    threads = threading.active_count()
    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path / "f", [4096] * pieces)
    assert threading.active_count() == threads


def test_no_more_buffers_than_keep_every_thread_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = module.mmap.mmap, list[int]()

    def counted(file: int, size: int) -> object:
        made.append(size)
        return real(file, size)

    monkeypatch.setattr(module.mmap, "mmap", counted)
    write(tmp_path / "f", [3000] * 500)
    assert made == [8192] * len(made)
    assert len(made) <= 5


def test_an_error_of_whoever_makes_the_pieces_is_not_hidden(tmp_path: Path) -> None:
    def fail(out: DigestedFile) -> None:
        with out:
            out.room(10_000)
            raise KeyError("the caller's")

    threads, out = threading.active_count(), DigestedFile(tmp_path / "f")
    with pytest.raises(KeyError, match="the caller's"):
        fail(out)
    assert out.digest == ""
    assert threading.active_count() == threads


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DigestedFile(tmp_path / "none/f")
