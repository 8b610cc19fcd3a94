"""Progress on standard error: a line that changes on a terminal; elsewhere plain lines, in a long step now and then."""

from __future__ import annotations

import sys
import threading
import time

from rich.console import Console
from rich.status import Status

from elastic_export.plan.fit_table import duration, size_text
from elastic_export.progress import Gauge, Progress

#: Seconds between two looks at a running step. A CI that hears nothing for long ends a job, and in a log many lines
#: hide the others.
_ON_A_TERMINAL, _ELSEWHERE = 0.5, 30.0


class ConsoleProgress(Progress):
    """Shows the running step on a terminal, how far it is and how long it will take, and prints each finished one."""

    def __init__(self, console: Console | None = None, *, every: float | None = None) -> None:
        super().__init__()
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._every = every or (_ON_A_TERMINAL if self._console.is_terminal else _ELSEWHERE)
        self._status: Status | None = None
        self._ticker: _Ticker | None = None

    def begin(self, name: str, subject: str) -> None:
        """A step begins."""
        super().begin(name, subject)
        if self._console.is_terminal:
            self._status = self._console.status(_label(name, subject))
            self._status.start()
        self._ticker = _Ticker(self, _label(name, subject), self._every)
        self._ticker.start()

    def watch(self, gauge: Gauge) -> None:
        """See `Progress`."""
        if self._ticker is not None:
            self._ticker.watch(gauge)

    def end(self, name: str, subject: str, taken: float) -> None:
        """A step ended, well or not."""
        super().end(name, subject, taken)
        if self._ticker is not None:
            self._ticker.stop()
            self._ticker = None
        if self._status is not None:
            self._status.stop()
            self._status = None
        if sys.exc_info()[0] is None:
            self._console.print(f"  {_label(name, subject):<44} {taken:6.1f} s", markup=False)

    def show(self, text: str) -> None:
        """How far the running step is."""
        if self._status is not None:
            self._status.update(text)
        else:
            self._console.print(f"  {text}", markup=False)

    def say(self, text: str) -> None:
        """Something a user should know."""
        self._console.print(f"note: {text}", markup=False)


class _Ticker(threading.Thread):
    """Looks at a running step now and then."""

    def __init__(self, progress: ConsoleProgress, label: str, every: float) -> None:
        super().__init__(daemon=True, name="progress")
        self._progress, self._label, self._every = progress, label, every
        self._start = time.monotonic()
        self._watched = (Gauge(0, lambda: 0), self._start, 0)
        self._ended = threading.Event()

    def watch(self, gauge: Gauge) -> None:
        """Ask this gauge from now on; what is done already is no part of the rate."""
        self._watched = (gauge, time.monotonic(), gauge.done())

    def run(self) -> None:
        """Until `stop`."""
        while not self._ended.wait(self._every):
            now, (gauge, since, before) = time.monotonic(), self._watched
            try:
                done = gauge.done()
            except OSError:
                continue  # a file has just got its last name: there will be another look
            rate = (done - before) / max(now - since, 1e-9)
            self._progress.show(f"{self._label}: {how_far(done, gauge.total, rate, now - self._start)}")

    def stop(self) -> None:
        """End at once."""
        self._ended.set()
        self.join()


def how_far(done: int, total: int, rate: float, taken: float) -> str:
    """`40 %, 10.0 GiB of 25.0 GiB, 1.0 GiB/s, about 15 s left`, at the mean rate, since one of the last moment would
    jump; of a step that nothing measures, or not yet, how many seconds it has taken.
    """
    if not 0 < done < total or rate <= 0:
        return f"{taken:.0f} s so far"
    sizes = f"{size_text(done)} of {size_text(total)}, {size_text(int(rate))}/s"
    return f"{100 * done // total} %, {sizes}, about {duration((total - done) / rate)} left"


def _label(name: str, subject: str) -> str:
    return f"{name} {subject}".rstrip()
