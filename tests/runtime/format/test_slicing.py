from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.format import slicing
from elastic_runtime.format.slicing import (
    Runs,
    TensorRuns,
    contiguous_block,
    copy_runs,
    full_runs,
    joined_shape,
    windows_of,
)


@st.composite
def axis_runs(draw: st.DrawFn, size: int) -> Runs:
    kept = draw(st.sets(st.integers(0, size - 1), min_size=1))
    runs: list[tuple[int, int]] = []
    for index in sorted(kept):  # sometimes neighbours stay apart: that is legal too
        if runs and sum(runs[-1]) == index and draw(st.booleans()):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return tuple(runs)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], TensorRuns]:
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    whole = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    return shape, tuple(((0, n),) if w else draw(axis_runs(n)) for n, w in zip(shape, whole, strict=True))


def by_numpy(source: np.ndarray, runs: TensorRuns) -> np.ndarray:
    for axis, parts in enumerate(runs):
        source = np.take(source, np.concatenate([np.arange(s, s + n) for s, n in parts]), axis)
    return source


@given(cuts(), st.integers(1, 100), st.integers(1, 3))
def test_copy_is_numpys_slice_whatever_the_band(
    cut: tuple[tuple[int, ...], TensorRuns], band: int, threads: int
) -> None:
    shape, runs = cut
    source = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    fetched: list[tuple[int, int]] = []
    released: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slicing, "_BAND_BYTES", band)
        patch.setattr(slicing, "_processors", lambda: threads)
        result = copy_runs(
            source,
            runs,
            fetch=lambda first, rows: fetched.append((first, rows)),
            release=lambda first, rows: released.append((first, rows)),
        )
    np.testing.assert_array_equal(result, by_numpy(source, runs))
    assert result.flags.c_contiguous
    assert sorted(fetched) == sorted(released)
    assert _rows(runs[0]) <= _rows(released)
    assert max(rows for _, rows in released) * result[:1].nbytes <= max(band, source[:1].nbytes)


@given(cuts(), st.integers(1, 9), st.data())
def test_a_copy_into_a_part_leaves_what_lies_around_it(
    cut: tuple[tuple[int, ...], TensorRuns], around: int, data: st.DataObject
) -> None:
    shape, runs = cut
    axis = data.draw(st.integers(0, len(shape) - 1))
    source = np.arange(1, 1 + np.prod(shape), dtype=np.uint16).reshape(shape)
    wanted = by_numpy(source, runs)
    other = (*wanted.shape[:axis], around, *wanted.shape[axis + 1 :])
    before, window, behind = windows_of([other, wanted.shape, other], axis)
    whole = np.zeros(window.shape, np.uint16)
    copy_runs(source, runs, into=window.view(whole))
    np.testing.assert_array_equal(window.view(whole), wanted)
    assert not before.view(whole).any()
    assert not behind.view(whole).any()


@pytest.mark.parametrize("into", [np.zeros((2, 3), np.uint16), np.zeros((2, 2), np.uint8)])
def test_a_copy_into_another_shape_or_dtype_is_refused_before_it_writes(into: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^a slice \[2, 2\] of uint16 into an array"):
        copy_runs(np.ones((2, 2), np.uint16), full_runs((2, 2)), into=into)
    assert not into.any()


def test_arrays_fit_together_where_they_agree_on_the_other_axes() -> None:
    assert joined_shape([(2, 3), (4, 3)], 0) == (6, 3)
    assert joined_shape([(2, 3), (2, 1), (2, 3)], 1) == (2, 7)
    assert joined_shape([(5,)], 0) == (5,)
    assert joined_shape([(2, 3), (2, 4)], 0) is None
    assert joined_shape([(4, 7), (4,)], 1) is None
    assert joined_shape([(4,)], 1) is None
    assert joined_shape([(4,)], -1) is None
    assert joined_shape([], 0) is None


def _rows(runs: Iterable[tuple[int, int]]) -> set[int]:
    return {row for start, count in runs for row in range(start, start + count)}


def test_the_channels_of_heads_are_copied_together() -> None:
    heads = tuple((80 * head, 64) for head in range(12))
    assert len(slicing._combs((*heads, (1280, 64), (1360, 64), (1500, 7)))) == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_in_any_band_is_the_callers(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(first: int, rows: int) -> None:
        if first == 3:
            raise OSError("gone")

    monkeypatch.setattr(slicing, "_BAND_BYTES", 2)
    monkeypatch.setattr(slicing, "_processors", lambda: threads)
    with pytest.raises(OSError, match="gone"):
        copy_runs(np.zeros((5, 2), np.uint8), full_runs((5, 2)), fetch=fetch)


@given(cuts())
def test_a_block_is_found_exactly_where_the_slice_is_one(cut: tuple[tuple[int, ...], TensorRuns]) -> None:
    shape, runs = cut
    indices = by_numpy(np.arange(np.prod(shape)).reshape(shape), runs).ravel()
    is_block = bool((np.diff(indices) == 1).all())
    found = contiguous_block(shape, runs)
    assert found == ((indices[0], indices.size) if is_block and found else None)
    # An axis of length 1 may hide a block from us, never the other way round; the plain cases must be seen.
    if is_block and 1 not in shape:
        assert found is not None


def test_the_cases_that_matter() -> None:
    assert contiguous_block((10, 4), (((2, 5),), ((0, 4),))) == (8, 20)
    assert contiguous_block((10, 4), (((2, 1),), ((1, 2),))) == (9, 2)
    assert contiguous_block((10, 4), (((0, 2), (2, 3)), ((0, 4),))) == (0, 20)
    assert contiguous_block((10, 4), (((0, 2), (5, 1)), ((0, 4),))) is None
    assert contiguous_block((10, 4), (((0, 2),), ((0, 3),))) is None
    assert contiguous_block((10, 4), full_runs((10, 4))) == (0, 40)
