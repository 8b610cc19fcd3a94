"""What stages measure with: seconds of repeated work, and the most that a card's memory held meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np

from elastic_runtime.bringup.results import Found
from elastic_runtime.driver.free_memory import find_card

#: Seconds between two looks at the memory. Each starts and ends NVML, beside steps that are being timed: with these,
#: fewer than one step in twenty has a look in it where a step takes less than 12 ms, and the 95th percentile has none.
_EVERY = 0.25


def timed(work: Callable[[], object]) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(seconds: Sequence[float]) -> Found:
    """Median and 95th percentile."""
    return {"median": float(np.median(seconds)), "p95": float(np.quantile(seconds, 0.95)), "count": len(seconds)}


class Watch:
    """While it lasts, looks at the card's free memory; `taken` are the bytes more that were in use at most.

    Other programs' count too. None where the driver does not say. `look` where the most is in use, for what is short.
    """

    def __init__(self) -> None:
        self.taken: int | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_again, daemon=True)

    def __enter__(self) -> Watch:
        found = find_card()
        self._before = found.free if found else None
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def look(self) -> None:
        """Once."""
        found = find_card()
        if found is not None and self._before is not None:
            self.taken = max(self.taken or 0, self._before - found.free)

    def _look_again(self) -> None:
        while not self._over.wait(_EVERY):
            self.look()
