"""How fast this machine is, found in a fraction of a second by doing a little of each kind of work."""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_export.plan.work import Rates

_WIDE, _ROWS, _FEW = 2048, 232, 8  # a layer of a small model; the tokens of a verification; rows of a decode step
_TIMES = 3
_ELEMENTS = 8 << 20  # 32 MiB of float32: more than a processor's caches hold
_DIGESTED = 8 << 20
_READ = 32 << 20
_LOOP = 20_000
_PAGE = 4096


def measure_rates(shard: Path | None) -> Rates:
    """Do a little of each kind of work; the best of a few times, as a machine that is busy now may be idle later.

    Args:
        shard: a file on the disk that the checkpoint is read from; None where there is none to read.
    """
    many, row, double = (_random(_ROWS, _WIDE), _random(_FEW, _WIDE), np.float64)
    square, tall = _random(_WIDE, _WIDE), _random(4 * _WIDE, _WIDE)
    operations = 2.0 * _ROWS * _WIDE * _WIDE
    fewer, narrower = many[:, : _WIDE // 2].astype(double), square[: _WIDE // 2, : _WIDE // 2].astype(double)
    values, result = _random(_ELEMENTS), np.empty(_ELEMENTS, np.float32)
    data = values[: _DIGESTED // 4].tobytes()
    moved = values.nbytes / _best(lambda: np.multiply(values, 2.0, out=result)) * 2  # each is read, and written
    read = _disk_rate(shard) if shard is not None else moved
    return Rates(
        products=operations / _best(lambda: many @ square.T),
        double_products=operations / 4 / _best(lambda: fewer @ narrower.T),
        few_rows=tall.nbytes / _best(lambda: row @ tall.T),
        moved=moved,
        digested=_DIGESTED / _best(lambda: hashlib.sha256(data).digest()),
        read=read,
        written=read,  # a plan writes nothing; most disks write about as fast as they read
        steps=_LOOP / _best(_loop),
    )


def _loop() -> dict[int, str]:
    found: dict[int, str] = {}
    for number in range(_LOOP):
        found[number % 97] = str(number)
    return found


def _random(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).random(shape, np.float32)


def _best(work: Callable[[], Any]) -> float:
    return min(_timed(work) for _ in range(_TIMES))


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return max(time.perf_counter() - start, 1e-9)


def _disk_rate(file: Path) -> float:
    """Bytes a second from the disk itself where its file system lets a reader past the cache, else from the cache."""
    size = min(_READ, file.stat().st_size) // _PAGE * _PAGE
    for flags in (os.O_RDONLY | getattr(os, "O_DIRECT", 0), os.O_RDONLY):
        try:
            return _read(file, flags, size)
        except OSError:
            continue  # a file system without direct reading
    return float(_READ)  # smaller than a page, or not to be read: whoever needs it will hear so


def _read(file: Path, flags: int, size: int) -> float:
    descriptor = os.open(file, flags)
    try:
        with mmap.mmap(-1, max(size, _PAGE)) as memory:  # begins at a page, as direct reading wants it
            start, done = time.perf_counter(), os.readv(descriptor, [memory])
            taken = max(time.perf_counter() - start, 1e-9)
    finally:
        os.close(descriptor)
    if not done:
        raise OSError
    return done / taken
