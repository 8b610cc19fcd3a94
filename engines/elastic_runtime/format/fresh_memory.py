"""Memory for a copy that fills it."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

_HUGE_PAGE = 2 << 20  # bytes: x86's, and ARM's with pages of 4 KiB


def fresh_array(shape: Sequence[int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A row-major array, not cleared. Large ones lie in huge pages where the system has them.

    Of the time of a copy into small pages most goes into page faults. numpy asks for huge ones too, but an array of its
    own begins somewhere in the first: up to two of them a tensor come as small pages after all. What does not fill the
    last one stays in small ones here as well, or it would be held for nothing.

    Raises:
        MemoryError: there is not as much.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes >= 2 * _HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # numpy says what is to be said
            memory = mmap.mmap(-1, nbytes + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            room: npt.NDArray[Any] = np.frombuffer(memory, np.uint8)
            start = -room.ctypes.data % _HUGE_PAGE
            with suppress(OSError):  # advice is only ever about speed
                memory.madvise(mmap.MADV_HUGEPAGE, start, nbytes - nbytes % _HUGE_PAGE)
            return room[start : start + nbytes].view(dtype).reshape(shape)
    return np.empty(shape, dtype)
