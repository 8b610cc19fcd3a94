"""Tasks side by side: what they share, what they raise, and what is as it was afterwards."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from elastic_export.verify.workers import Shared, Task, workers_for

WIDE, NARROW = 4096, 64


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch as on a machine with two processors, whatever this one has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_two_tasks_of_a_wide_model_run_at_a_time_each_on_one_thread() -> None:
    meeting, threads = threading.Barrier(2, timeout=20), list[int]()

    def task() -> None:
        meeting.wait()  # breaks, and raises, where the other task does not run meanwhile
        assert torch.is_inference_mode_enabled()
        threads.append(torch.get_num_threads())

    with workers_for(WIDE) as workers:
        workers.run([task, task])
        assert workers.threads == 1
    assert threads == [1, 1]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_small_model_runs_in_order_on_this_thread() -> None:
    order = list[tuple[int, int]]()

    def noting(number: int) -> Task:
        return lambda: order.append((number, threading.get_ident()))

    with workers_for(NARROW) as workers:
        workers.run(map(noting, range(3)))
    assert order == [(number, threading.get_ident()) for number in range(3)]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_first_failure_in_order_is_raised_and_all_threads_come_back(width: int) -> None:
    def failing(text: str) -> Task:
        def task() -> None:
            raise ValueError(text)

        return task

    with pytest.raises(ValueError, match="first"), workers_for(width) as workers:
        workers.run([lambda: None, failing("first"), failing("second")])
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_failure_is_raised_when_the_other_task_has_ended() -> None:
    """It may still be using what the caller gives back after a failure."""
    failed, ended = threading.Event(), list[bool]()

    def failing() -> None:
        failed.set()
        raise ValueError("at once")

    def slow() -> None:
        failed.wait(20)
        time.sleep(0.2)
        ended.append(True)

    with workers_for(WIDE) as workers:
        with pytest.raises(ValueError, match="at once"):
            workers.run([failing, slow])
        assert ended == [True]


def test_two_who_ask_at_once_are_given_the_same() -> None:
    made = list[object]()

    def make() -> object:
        time.sleep(0.1)
        made.append(object())
        return made[-1]

    shared = Shared(2, make)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: shared.take(), range(2))
    assert first is second
    assert len(made) == 1


def test_what_is_shared_is_made_once_and_gone_after_its_last_user() -> None:
    made = list[weakref.ref[np.ndarray]]()  # type: ignore[type-arg]

    def make() -> np.ndarray:  # type: ignore[type-arg]
        array = np.zeros(4)
        made.append(weakref.ref(array))
        return array

    shared = Shared(2, make)
    first, second = shared.take(), shared.take()
    assert first is second
    assert len(made) == 1
    del first, second
    assert made[0]() is None, "the value outlives its users"
