"""What a long job says while it runs, and how long each of its steps took."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


class Progress:
    """Silent progress: names steps to the log and keeps their times. Command lines show more (cli/progress.py)."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}

    @contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[None]:
        """A named step; `subject` starts with the budget it is about, if any."""
        self.begin(name, subject)
        start = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - start
            key = (subject.split(" ", maxsplit=1)[0], name)
            self._seconds[key] = self._seconds.get(key, 0.0) + taken
            self.end(name, subject, taken)

    def seconds(self, subject: str = "") -> dict[str, float]:
        """Seconds by step name, of one budget or of the steps about none."""
        return {name: taken for (about, name), taken in self._seconds.items() if about == subject}

    def begin(self, name: str, subject: str) -> None:
        """A step begins."""
        logger.info("%s %s", name, subject)

    def end(self, name: str, subject: str, taken: float) -> None:
        """A step ended."""
        logger.info("%s %s: %.1f s", name, subject, taken)

    def say(self, text: str) -> None:
        """Something a user should know."""
        logger.warning("%s", text)
