"""Progress on standard error: a line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.status import Status

from elastic_export.progress import Progress


class ConsoleProgress(Progress):
    """Shows the running step on a terminal and prints each finished one."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._status: Status | None = None

    def begin(self, name: str, subject: str) -> None:
        """A step begins."""
        super().begin(name, subject)
        if self._console.is_terminal:
            self._status = self._console.status(_label(name, subject))
            self._status.start()

    def end(self, name: str, subject: str, taken: float) -> None:
        """A step ended, well or not."""
        super().end(name, subject, taken)
        if self._status is not None:
            self._status.stop()
            self._status = None
        if sys.exc_info()[0] is None:
            self._console.print(f"  {_label(name, subject):<44} {taken:6.1f} s", markup=False)

    def say(self, text: str) -> None:
        """Something a user should know."""
        self._console.print(f"note: {text}", markup=False)


def _label(name: str, subject: str) -> str:
    return f"{name} {subject}".rstrip()
