"""What a long job says while it runs, and how long each of its steps took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gauge:
    """How far a step is, asked from another thread while it runs: `done()` bytes of about `total`."""

    total: int
    done: Callable[[], int]


def folder_gauge(folder: Path, total: int) -> Gauge:
    """By what a folder holds already, for whoever writes into it."""
    return Gauge(total, lambda: sum(path.stat().st_size for path in folder.iterdir() if path.is_file()))


class Progress:
    """Silent progress: names steps to the log and keeps their times. Command lines show more (cli/terminal.py)."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}

    @contextmanager
    def step(self, name: str, budget: str = "", what: str = "") -> Iterator[None]:
        """A named step, of one budget or of none; `what` says which of several."""
        subject = f"{budget} {what}".strip()
        self.begin(name, subject)
        start = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - start
            key = (budget, name)
            self._seconds[key] = self._seconds.get(key, 0.0) + taken
            self.end(name, subject, taken)

    def seconds(self, budget: str = "") -> dict[str, float]:
        """Seconds by step name, of one budget or of the steps about none."""
        return {name: taken for (about, name), taken in self._seconds.items() if about == budget}

    def begin(self, name: str, subject: str) -> None:
        """A step begins."""
        logger.info("%s %s", name, subject)

    def end(self, name: str, subject: str, taken: float) -> None:
        """A step ended."""
        logger.info("%s %s: %.1f s", name, subject, taken)

    def watch(self, gauge: Gauge) -> None:
        """What runs now is as far as this gauge says; silent progress does not ask it."""

    def say_all(self, texts: Iterable[str]) -> None:
        """Several things a user should know."""
        for text in texts:
            self.say(text)

    def say(self, text: str) -> None:
        """Something a user should know."""
        logger.warning("%s", text)
