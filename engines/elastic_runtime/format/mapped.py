"""A file of tensors: mapped read-only for views of it, read for what is copied out of it."""

from __future__ import annotations

import math
import mmap
import os
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from elastic_runtime.errors import REFUSED, InputError
from elastic_runtime.format.slicing import Array, Read

_AGAIN = "copy that file again"


class MappedFile:
    """Read-only view of a file. Arrays made from it keep the mapping alive; nothing needs closing."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._file)
        self._map = mmap.mmap(self._file, 0, access=mmap.ACCESS_READ)

    def array(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """The tensor at byte `offset`, row-major, read-only, not copied; `offset` need not be aligned.

        Raises:
            InputError: the file ends before the tensor does.
        """
        if offset + math.prod(shape) * dtype.itemsize > len(self._map):
            raise self._unreadable(len(self._map), "its end")
        array: Array = np.ndarray(shape, dtype, buffer=self._map, offset=offset)
        return array

    def reader(self, offset: int) -> Read:
        """Reads the tensor that starts at byte `offset`; errors as `read`."""
        return lambda at, into: self.read(offset + at, into)

    def read(self, offset: int, into: Array) -> None:
        """Fill a contiguous array of bytes from byte `offset` on; several threads may at once.

        Raises:
            InputError: the file has become shorter, or cannot be read.
        """
        if not hasattr(os, "preadv"):  # Windows
            into[...] = self.array(offset, into.dtype, into.shape)
            return
        done = 0
        while done < into.size:
            try:
                count = os.preadv(self._file, [into[done:].data], offset + done)
            except OSError as error:
                todo = REFUSED.get(error.errno or 0, _AGAIN)
                raise self._unreadable(offset + done, error.strerror or "an error", todo) from error
            if count == 0:
                raise self._unreadable(offset + done, "its end")
            done += count

    def _unreadable(self, offset: int, found: str, todo: str = _AGAIN) -> InputError:
        return InputError(str(self._path), expected=f"bytes from {offset} on", found=found, todo=todo)

    def release(self, offset: int, size: int) -> None:
        """Unmap the pages of these bytes: they stay in the page cache, and reading them again only faults."""
        start = offset - offset % mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED"):
            with suppress(OSError):  # advice is only ever about memory
                self._map.madvise(mmap.MADV_DONTNEED, start, offset + size - start)
