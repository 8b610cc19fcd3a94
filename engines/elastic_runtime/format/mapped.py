"""A file mapped read-only, whose pages are given back when they have been copied."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from elastic_runtime.format.slicing import Array

_POPULATE_READ = 22  # MADV_POPULATE_READ, Linux 5.14: one call instead of a page fault every 64 KiB


class MappedFile:
    """Read-only view of a file. Arrays made from it keep the mapping alive; nothing needs closing."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def array(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """The tensor at byte `offset`, row-major, read-only, not copied; `offset` need not be aligned."""
        array: Array = np.ndarray(shape, dtype, buffer=self._map, offset=offset)
        return array

    def fetch(self, offset: int, size: int) -> None:
        """Map `size` bytes from `offset` in one go."""
        self._advise(_POPULATE_READ, offset, size)

    def release(self, offset: int, size: int) -> None:
        """Unmap the pages of these bytes: they stay in the page cache, and reading them again only faults."""
        self._advise(getattr(mmap, "MADV_DONTNEED", None), offset, size)

    def _advise(self, advice: int | None, offset: int, size: int) -> None:
        start = offset - offset % mmap.PAGESIZE
        if advice is None or not hasattr(self._map, "madvise"):
            return  # advice is only ever about speed and memory
        try:
            self._map.madvise(advice, start, offset + size - start)
        except OSError:
            return  # an older kernel does not know it
