"""Strided copies give what slicing gives, and as few as the runs allow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.driver.blocks import Block, strided_blocks
from elastic_runtime.errors import InputError
from elastic_runtime.format.slicing import TensorRuns, copy_runs, full_runs, windows_of


@st.composite
def _cases(draw: st.DrawFn) -> tuple[tuple[int, ...], TensorRuns]:
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    runs = []
    for size in shape:
        kept = sorted(draw(st.sets(st.integers(0, size - 1), min_size=1)))
        runs.append(tuple((index, 1) for index in kept))
    return tuple(shape), tuple(runs)


def _apply(source: np.ndarray, blocks: list[Block], nbytes: int) -> bytes:
    result, written = bytearray(nbytes), np.zeros(nbytes, np.int64)
    _write(source, blocks, result, written)
    assert (written == 1).all()  # every byte of the result once
    return bytes(result)


def _write(source: np.ndarray, blocks: list[Block], result: bytearray, written: np.ndarray) -> None:
    """Copy the blocks, and count how often each byte was written."""
    data = source.tobytes()
    for block in blocks:
        for row in range(block.height):
            at, to = block.source + row * block.source_pitch, block.target + row * block.target_pitch
            result[to : to + block.width] = data[at : at + block.width]
            written[to : to + block.width] += 1


@given(_cases(), st.sampled_from([1, 2, 4]))
def test_the_blocks_are_the_slice(case: tuple, itemsize: int) -> None:
    shape, runs = case
    source = np.arange(math.prod(shape), dtype=f"u{itemsize}").reshape(shape)
    wanted = copy_runs(source, runs).tobytes()
    assert _apply(source, strided_blocks(shape, runs, itemsize), len(wanted)) == wanted


@given(st.data(), st.sampled_from([1, 2, 4]))
def test_blocks_of_parts_fill_the_whole_that_they_make(data: st.DataObject, itemsize: int) -> None:
    axes = data.draw(st.integers(1, 4))
    axis, shared = data.draw(st.integers(0, axes - 1)), [data.draw(st.integers(1, 3)) for _ in range(axes)]
    slices, sources, runs = list[np.ndarray](), list[np.ndarray](), list[TensorRuns]()
    for number in range(data.draw(st.integers(1, 3))):
        kept = [*shared[:axis], data.draw(st.integers(1, 3)), *shared[axis + 1 :]]
        firsts = [data.draw(st.integers(0, 3)) for _ in kept]
        shape = [first + size + data.draw(st.integers(0, 2)) for first, size in zip(firsts, kept, strict=True)]
        sources.append(np.arange(math.prod(shape), dtype=f"u{itemsize}").reshape(shape) + number)
        runs.append(tuple(((first, size),) for first, size in zip(firsts, kept, strict=True)))
        slices.append(copy_runs(sources[-1], runs[-1]))
    whole = np.concatenate(slices, axis)
    result, written = bytearray(whole.nbytes), np.zeros(whole.nbytes, np.int64)
    for source, kept_runs, window in zip(sources, runs, windows_of([s.shape for s in slices], axis), strict=True):
        _write(source, strided_blocks(source.shape, kept_runs, itemsize, window), result, written)
    assert (written == 1).all()
    assert bytes(result) == whole.tobytes()


def test_rows_of_parts_are_one_copy_each() -> None:
    parts = [(3, 4), (2, 4)]
    blocks = [strided_blocks(s, full_runs(s), 2, window) for s, window in zip(parts, windows_of(parts, 0), strict=True)]
    assert blocks == [[Block(0, 0, 24, 1, 24, 40)], [Block(0, 24, 16, 1, 16, 40)]]


def test_a_top_left_block_is_one_copy() -> None:
    assert strided_blocks((8, 6), (((0, 5),), ((0, 4),)), 2) == [Block(0, 0, 8, 5, 12, 8)]


def test_whole_rows_of_a_convolution_are_one_copy_a_run() -> None:
    blocks = strided_blocks((96, 1, 4), (((0, 10), (16, 10)), ((0, 1),), ((0, 4),)), 4)
    assert [(b.source, b.width * b.height) for b in blocks] == [(0, 160), (256, 160)]


def test_refuses_millions_of_pieces() -> None:
    runs = (tuple((2 * i, 1) for i in range(3000)),) * 2
    with pytest.raises(
        InputError, match=r"slice: expected at most 4000000 pieces, found 9000000\. Export with --weights sliced"
    ):
        strided_blocks((6000, 6000), runs, 2)
