"""Two buffers that take turns: what a copy still reads is not filled again, and every byte arrives where it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.driver.blocks import Block, strided_blocks
from elastic_runtime.driver.staging import Staging
from elastic_runtime.errors import BuildError
from elastic_runtime.format.slicing import Window, reader_of


class LateLane:
    """Copies when it is waited for, and no earlier."""

    error: BaseException = BuildError("card 0", expected="memory", found="none")

    def __init__(self, size: int, memory: int = 2) -> None:
        self.target, self.memory = np.full(size, 0xEE, np.uint8), memory
        self.asked: list[Callable[[], None]] = []
        self.held = 0

    def host_buffer(self, nbytes: int) -> np.ndarray:
        if self.held == self.memory:
            raise self.error
        self.held += 1
        return np.zeros(nbytes, np.uint8)

    def free_host_buffer(self, buffer: np.ndarray) -> None:
        self.held -= 1

    def copy_rows(self, address: int, rows: np.ndarray, pitch: int) -> None:
        assert rows.flags.c_contiguous

        def work() -> None:
            for number, row in enumerate(rows):
                self.target[address + number * pitch :][: len(row)] = row

        self.asked.append(work)

    def make_event(self) -> list[int]:
        return [0]

    def drop_event(self, event: Any) -> None:
        pass

    def record(self, event: list[int]) -> None:
        event[0] = len(self.asked)

    def wait(self, event: list[int]) -> None:
        for number in range(event[0]):
            self.asked[number]()
            self.asked[number] = lambda: None  # done


axis = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=4)


@given(rows=axis, columns=axis, size=st.integers(1, 40))
def test_slices_arrive_whatever_the_buffers_hold(
    rows: list[tuple[int, int]], columns: list[tuple[int, int]], size: int
) -> None:
    shape, runs, kept = [], [], []
    for gaps in (rows, columns):
        at, found = 0, []
        for gap, count in gaps:
            found.append((at + gap, count))
            at += gap + count
        shape.append(at + 1)
        runs.append(tuple(found))
        kept.append([i for start, count in found for i in range(start, start + count)])
    source = np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)
    wanted = source[kept[0]][:, kept[1]]
    lane = LateLane(wanted.size)
    staging = Staging(lane, size)
    staging.copy(0, reader_of(source.reshape(-1)), strided_blocks(shape, tuple(runs), 1))
    lane.wait([len(lane.asked)])
    staging.close()
    assert lane.target.tobytes() == wanted.tobytes()
    assert lane.held == 0


def test_columns_of_the_same_rows_leave_as_one_piece() -> None:
    source, runs = (
        np.arange(40 * 96, dtype=np.uint16).astype(np.uint8),
        (((0, 20), (30, 5)), ((1, 8), (16, 8), (40, 3))),
    )
    kept = [[i for start, count in axis for i in range(start, start + count)] for axis in runs]
    for window in (None, Window((25, 30), 1, 4, 19)):
        lane = LateLane(25 * 30)
        whole = lane.target.copy()[: 25 * (30 if window else 19)].reshape(25, -1)
        (window.view(whole) if window else whole)[...] = source.reshape(40, 96)[kept[0]][:, kept[1]]
        staging = Staging(lane, 200)
        staging.copy(0, reader_of(source), strided_blocks((40, 96), runs, 1, window))
        assert len(lane.asked) == 3  # ten rows a buffer, ten, five
        lane.wait([3])
        assert lane.target[: whole.size].tobytes() == whole.tobytes()


@pytest.mark.parametrize("error", [LateLane.error, KeyboardInterrupt()])
def test_without_page_locked_memory_nothing_is_held(error: BaseException) -> None:
    lane = LateLane(4, memory=1)
    lane.error = error
    with pytest.raises(type(error)):
        Staging(lane, 8)
    assert lane.held == 0


def test_the_source_may_change_afterwards() -> None:
    source, lane = np.arange(30, dtype=np.uint8), LateLane(30)
    staging = Staging(lane, 30)
    staging.copy(0, reader_of(source), [Block(0, 0, 30, 1, 30, 30)])
    source[:] = 0
    lane.wait([len(lane.asked)])
    assert lane.target.tolist() == list(range(30))
