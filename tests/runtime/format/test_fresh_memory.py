"""Memory for large copies: where it begins, whose it is, and what happens where there is none."""

from __future__ import annotations

import mmap
import weakref
from typing import Any

import numpy as np
import pytest

from elastic_runtime.format.fresh_memory import fresh_array

_HUGE_PAGE = 2 << 20
on_linux = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="huge pages by advice are Linux's")


@pytest.mark.parametrize("size", [0, 1, 2 * _HUGE_PAGE - 1, 2 * _HUGE_PAGE, 2 * _HUGE_PAGE + 1, 3 * _HUGE_PAGE])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_it_is_an_array_like_any(size: int, dtype: str) -> None:
    array = fresh_array((size, 3), np.dtype(dtype))
    assert (array.shape, array.dtype) == ((size, 3), np.dtype(dtype))
    assert array.flags.c_contiguous
    array[...] = 7
    assert int((array == 7).sum()) == 3 * size


@on_linux
@pytest.mark.parametrize("nbytes", [2 * _HUGE_PAGE, 5 * _HUGE_PAGE + 12345])
def test_a_large_one_begins_with_a_huge_page(nbytes: int) -> None:
    assert [fresh_array((nbytes,), np.dtype(np.uint8)).ctypes.data % _HUGE_PAGE for _ in range(3)] == [0, 0, 0]


@on_linux
def test_it_is_given_back_with_the_last_view(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[mmap.mmap]] = []

    class Noted(mmap.mmap):
        def __new__(cls, *arguments: Any, **named: Any) -> Noted:
            self = super().__new__(cls, *arguments, **named)
            made.append(weakref.ref(self))
            return self

    monkeypatch.setattr(mmap, "mmap", Noted)
    view = fresh_array((3 * _HUGE_PAGE,), np.dtype(np.uint8))[5:9]
    view[...] = 1
    assert made[0]() is not None
    del view
    assert made[0]() is None


@on_linux
def test_where_the_system_refuses_numpy_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a MemoryError for those who ask for too much."""

    def refuse(*arguments: object, **named: object) -> object:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert fresh_array((3, _HUGE_PAGE), np.dtype(np.uint16)).shape == (3, _HUGE_PAGE)
    with pytest.raises(MemoryError):
        fresh_array((1 << 60,), np.dtype(np.uint8))


@on_linux
def test_advice_that_is_not_taken_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel may be without huge pages."""

    class Without(mmap.mmap):
        def madvise(self, *arguments: object) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Without)
    assert fresh_array((3 * _HUGE_PAGE,), np.dtype(np.uint8)).size == 3 * _HUGE_PAGE


def test_a_system_without_the_advice_has_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert fresh_array((3 * _HUGE_PAGE,), np.dtype(np.uint8)).flags.owndata
