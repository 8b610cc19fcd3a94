from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

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
    read_runs,
    reader_of,
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


@st.composite
def heads(draw: st.DrawFn) -> tuple[tuple[int, ...], TensorRuns]:
    """Columns as a projection's are: channels of the heads of groups, and what follows them; some rows."""
    count, gap, of_group, between, groups = (draw(st.integers(1, 5)) for _ in range(5))
    group = of_group * (count + gap) + between
    columns = [(g * group + h * (count + gap), count) for g in range(groups) for h in range(of_group)]
    rest = draw(axis_runs(6))
    columns += [(groups * group + start, size) for start, size in rest]
    rows = draw(st.integers(1, 12))
    return (rows, groups * group + 6), (draw(axis_runs(rows)), tuple(columns))


ways = {"memory": False, "a file": True}


@given(
    cut=cuts() | heads(),
    dtype=st.sampled_from(["u1", "u2", "u4"]),
    band=st.integers(1, 100),
    short=st.integers(0, 20),
    threads=st.integers(1, 3),
)
@pytest.mark.parametrize("reads", ways.values(), ids=ways)
def test_a_copy_is_numpys_slice_whatever_the_band(
    reads: bool, cut: tuple[tuple[int, ...], TensorRuns], dtype: str, band: int, short: int, threads: int
) -> None:
    shape, runs = cut
    source = numbered(shape, dtype)
    touched: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slicing, "_BAND_BYTES", band)
        patch.setattr(slicing, "_SHORT_RUN", short)
        patch.setattr(slicing, "_processors", lambda: threads)
        result = _read(source, runs, None, touched) if reads else copy_runs(source, runs)
    np.testing.assert_array_equal(result, by_numpy(source, runs))
    assert result.flags.c_contiguous
    if reads:
        row = source[:1].nbytes
        kept = by_numpy(np.arange(source.size).reshape(shape), runs).ravel() * source.itemsize
        assert {int(byte) for byte in kept} <= {byte for at, size in touched for byte in range(at, at + size)}
        assert max(at + size for at, size in touched) == kept[-1] + source.itemsize  # a file may end there
        assert max(size for _, size in touched) <= max(band, row)


def numbered(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Elements that differ from all near them."""
    return (np.arange(1, 1 + np.prod(shape)) % 251 + 1).astype(dtype).reshape(shape)


def _read(
    source: np.ndarray, runs: TensorRuns, into: np.ndarray | None, touched: list[tuple[int, int]] | None = None
) -> np.ndarray:
    """By a reader that notes what it reads."""
    read = reader_of(source.reshape(-1).view(np.uint8))

    def noted(at: int, room: np.ndarray) -> None:
        assert room.flags.c_contiguous
        if touched is not None:
            touched.append((at, room.size))
        read(at, room)

    return read_runs(noted, source.shape, source.dtype, runs, into=into)


@given(cuts(), st.integers(1, 9), st.data())
@pytest.mark.parametrize("reads", ways.values(), ids=ways)
def test_a_copy_into_a_part_leaves_what_lies_around_it(
    reads: bool, cut: tuple[tuple[int, ...], TensorRuns], around: int, data: st.DataObject
) -> None:
    shape, runs = cut
    axis = data.draw(st.integers(0, len(shape) - 1))
    source = numbered(shape, "u2")
    wanted = by_numpy(source, runs)
    other = (*wanted.shape[:axis], around, *wanted.shape[axis + 1 :])
    before, window, behind = windows_of([other, wanted.shape, other], axis)
    whole = np.zeros(window.shape, np.uint16)
    (_read if reads else copy_runs)(source, runs, into=window.view(whole))
    np.testing.assert_array_equal(window.view(whole), wanted)
    assert not before.view(whole).any()
    assert not behind.view(whole).any()


@pytest.mark.parametrize("into", [np.zeros((2, 3), np.uint16), np.zeros((2, 2), np.uint8)])
def test_a_copy_into_another_shape_or_dtype_is_refused_before_it_writes(into: np.ndarray) -> None:
    for copy in (copy_runs, _read):
        with pytest.raises(ValueError, match=r"^a slice \[2, 2\] of uint16 into an array"):
            copy(np.ones((2, 2), np.uint16), full_runs((2, 2)), into=into)
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


def test_the_channels_of_heads_are_copied_together() -> None:
    groups = [(1280 * group + 80 * head, 64) for group in range(3) for head in range(12)]
    runs = (*groups, (3840, 64), (3920, 64), (4060, 7))
    assert len(slicing._combs(runs, 1)) == 5
    assert len(slicing._combs(runs, 2)) == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_in_any_band_is_the_callers_when_nobody_writes_any_more(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, failed = threading.Event(), threading.Event()
    begun: list[int] = []

    def read(at: int, into: np.ndarray) -> None:
        begun.append(at)
        if at == 6:
            assert threads == 1 or beside.wait(10)
            failed.set()
            raise OSError("gone")
        if at > 6:
            beside.set()
            assert failed.wait(10)
            time.sleep(0.05)  # by then the caller has heard of it
        into[...] = 1

    monkeypatch.setattr(slicing, "_BAND_BYTES", 2)
    monkeypatch.setattr(slicing, "_processors", lambda: threads)
    result = np.zeros((40, 2), np.uint8)
    with pytest.raises(OSError, match="gone"):
        read_runs(read, (40, 2), np.dtype(np.uint8), full_runs((40, 2)), into=result)
    assert sorted(begun) == [0, 2, 4, 6, 8][: 3 + threads]
    assert result[:, 0].tolist() == [1, 1, 1, 0, threads - 1] + [0] * 35


def test_a_copy_of_long_runs_lets_other_threads_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy keeps the interpreter to itself while it copies up to 500 elements, however long they are."""
    monkeypatch.setattr(slicing, "_processors", lambda: 1)
    shape, runs, into = (600, 20480), (((0, 600),), ((0, 12288),)), np.empty((600, 12288), np.uint8)

    def runs_beside() -> bool:
        gate, ran = threading.Lock(), threading.Event()
        gate.acquire()
        beside = threading.Thread(target=lambda: gate.acquire() and ran.set())
        beside.start()
        gate.release()
        read_runs(lambda at, room: None, shape, np.dtype(np.uint8), runs, into=into)
        seen = ran.is_set()
        beside.join()
        return seen

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # only what gives the interpreter away lets another thread run
    try:
        assert any(runs_beside() for _ in range(1000))  # a machine may have no processor for it at that moment
    finally:
        sys.setswitchinterval(interval)


def test_threads_that_have_not_begun_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the pool's may be at other work; the caller cuts what they do not."""
    monkeypatch.setattr(slicing, "_BAND_BYTES", 2)
    monkeypatch.setattr(slicing, "_processors", lambda: 4)
    source, free = numbered((9, 2), "u1"), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(free.wait, 10)
        monkeypatch.setattr(slicing, "_pool", lambda: pool)
        result = copy_runs(source, full_runs((9, 2)))
        waited = busy.done()
        free.set()
    assert not waited
    np.testing.assert_array_equal(result, source)


Starting = Callable[[int, BaseException], None]


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Starting]:
    """Bands of two bytes, and that many threads that start before the error comes."""
    monkeypatch.setattr(slicing, "_BAND_BYTES", 2)
    monkeypatch.setattr(slicing, "_processors", lambda: 4)
    with ThreadPoolExecutor(1) as pool:

        def start(threads: int, error: BaseException) -> None:
            left = iter(range(threads))

            def submit(work: Callable[[], None]) -> Future[None]:
                if next(left, None) is None:
                    raise error
                return pool.submit(work)

            monkeypatch.setattr(slicing, "_pool", lambda: SimpleNamespace(submit=submit))

        yield start


@pytest.mark.parametrize("threads", [0, 1])
def test_where_no_more_threads_start_the_caller_cuts_too(starting: Starting, threads: int) -> None:
    """The machine has no more of them, or the interpreter ends."""
    starting(threads, RuntimeError("can't start new thread"))
    source = numbered((9, 2), "u1")
    np.testing.assert_array_equal(copy_runs(source, full_runs((9, 2))), source)


def test_nobody_writes_after_an_interruption_while_threads_start(starting: Starting) -> None:
    """What is written into may be page-locked memory, which is given back then."""
    starting(1, KeyboardInterrupt())
    written: list[int] = []

    def read(at: int, into: np.ndarray) -> None:
        time.sleep(0.05)
        written.append(at)

    with pytest.raises(KeyboardInterrupt):
        read_runs(read, (9, 2), np.dtype(np.uint8), full_runs((9, 2)))
    told = list(written)
    time.sleep(0.2)
    assert told == written
    assert len(written) < 9


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
