"""Work that is killed before a line of some of our files, as a machine that loses power would end it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any


def die_at_line(number: int, files: Sequence[str]) -> Callable[..., Any]:
    """A trace function that kills the process with SIGKILL before the number-th line of the files whose path has one of
    these names in it.
    """
    left = number

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if not any(name in frame.f_code.co_filename for name in files):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def run_child(work: Callable[[], object], trace: Callable[..., Any] | None) -> int:
    """Run `work` in a forked process; its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.settrace(trace)
            work()
            os._exit(0)
        except BaseException:
            os._exit(3)
    return os.waitpid(pid, 0)[1]


def count_lines(work: Callable[[], object], files: Sequence[str]) -> int:
    """Lines of those files that `work` runs in this thread."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if any(name in frame.f_code.co_filename for name in files):
            lines += event == "line"
            return trace
        return None

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return lines
