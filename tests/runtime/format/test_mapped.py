"""A file as it is read: whole, in pieces, shorter than it was, and where there is no positioned read."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from elastic_runtime.errors import InputError
from elastic_runtime.format.mapped import MappedFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "w.bin"
    path.write_bytes(bytes(range(100)))
    return path


def test_a_tensors_bytes_are_read_from_where_it_starts(path: Path) -> None:
    into = np.zeros(5, np.uint8)
    MappedFile(path).reader(10)(7, into)
    assert into.tolist() == [17, 18, 19, 20, 21]


def test_a_read_that_brings_less_is_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, into, at: preadv(file, [into[0][:3]], at))
    into = np.zeros(8, np.uint8)
    MappedFile(path).read(90, into)
    assert into.tolist() == list(range(90, 98))


def test_a_file_that_has_become_shorter_is_named_with_the_byte_it_ends_at(path: Path) -> None:
    file = MappedFile(path)
    os.truncate(path, 60)
    with pytest.raises(InputError) as caught:
        file.read(50, np.zeros(20, np.uint8))
    assert str(caught.value) == f"{path}: expected bytes from 60 on, found its end. Copy that file again."


def test_a_view_beyond_the_end_is_refused(path: Path) -> None:
    """Of a file that another, shorter one replaced after its size was looked at."""
    file = MappedFile(path)
    assert file.array(92, np.dtype(np.uint16), (2, 2)).shape == (2, 2)
    with pytest.raises(InputError) as caught:
        file.array(93, np.dtype(np.uint16), (2, 2))
    assert str(caught.value) == f"{path}: expected bytes from 100 on, found its end. Copy that file again."


def test_a_disk_that_fails_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int, into: object, at: int) -> int:
        raise OSError(5, "Input/output error")

    file = MappedFile(path)
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(InputError) as caught:
        file.read(4, np.zeros(2, np.uint8))
    told = "found Input/output error. See that its disk is sound and still mounted."
    assert str(caught.value) == f"{path}: expected bytes from 4 on, {told}"


def test_without_positioned_reads_the_mapping_is_copied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "preadv")
    into = np.zeros(5, np.uint8)
    MappedFile(path).read(10, into)
    assert into.tolist() == [10, 11, 12, 13, 14]


def test_nothing_stays_open_and_what_was_made_of_it_stays_valid(path: Path) -> None:
    file = MappedFile(path)
    number, view = file._file, file.array(10, np.dtype(np.uint8), (2, 3))
    del file
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    assert view.tolist() == [[10, 11, 12], [13, 14, 15]]
