"""Tasks side by side, each with its share of the processors.

Two threads of one op meet after every op, and where something else runs on the machine each meeting waits for whoever
was put off: measured there, the float64 scan of nine tokens took 0.65 s on two threads and 0.04 s on one. Budgets and
twins need not meet at all before a layer's end.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Generic, TypeVar

import torch

Task = Callable[[], None]
Result = TypeVar("Result")

_SIDES = 2  # tasks at a time: each holds a layer's weights and intermediate values
_WIDE = 1024  # channels of a model from which on threads pay; ops of a smaller one end before a second thread has begun


class Shared(Generic[Result]):
    """A value that is made when it is first asked for, by whichever task comes first, and dropped when it has been
    given to as many as will ask.
    """

    def __init__(self, users: int, make: Callable[[], Result]) -> None:
        self._users, self._make, self._lock, self._made = users, make, Lock(), list[Result]()

    def take(self) -> Result:
        """The value. Raises what making it raises, and then the next who asks makes it anew."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            self._users -= 1
            return self._made[0] if self._users > 0 else self._made.pop()


class Workers:
    """Runs tasks; see `workers_for`.

    Attributes:
        threads: of one op inside a task.
    """

    def __init__(self, pool: ThreadPoolExecutor | None, threads: int) -> None:
        self._pool, self.threads = pool, threads

    def run(self, tasks: Iterable[Task]) -> None:
        """All of them, begun in this order; back when all have ended.

        Raises what the first of those that failed raises.
        """
        if self._pool is None:
            for task in tasks:
                _run(task)
        else:
            futures = [self._pool.submit(_run, task) for task in tasks]
            errors = [future.exception() for future in futures]
            for error in errors:
                if error is not None:
                    raise error


@contextmanager
def workers_for(width: int) -> Iterator[Workers]:
    """Workers for a model of that many channels; PyTorch has as many threads before and after."""
    before = torch.get_num_threads()
    sides = _SIDES if width >= _WIDE and before > 1 else 1
    threads = before // sides if width >= _WIDE else 1
    torch.set_num_threads(threads)
    try:
        if sides == 1:
            yield Workers(None, threads)
        else:
            pool = ThreadPoolExecutor(sides)
            try:
                yield Workers(pool, threads)
            finally:
                pool.shutdown(cancel_futures=True)  # whoever interrupts waits for what runs, not for what would follow
    finally:
        torch.set_num_threads(before)


def _run(task: Task) -> None:
    with torch.inference_mode():  # is a thread's own
        task()
    with suppress(AttributeError, OSError):  # another C library
        # What was freed goes back to the system: glibc would keep it for this thread, 2 GB of it after a layer.
        ctypes.CDLL(None).malloc_trim(0)
