"""What a signal does for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def handled(handler: Any, *names: str) -> Iterator[None]:
    """Give signals a handler: those of the names that this system has and nobody has said to ignore, as `nohup` does of
    SIGHUP.
    """
    ours = threading.current_thread() is threading.main_thread()  # no other thread may say what a signal does
    numbers = [getattr(signal, name) for name in names if ours and hasattr(signal, name)]
    left = (signal.SIG_IGN, None)  # None: a handler of the program around Python, which could not be given back
    before = {number: signal.signal(number, handler) for number in numbers if signal.getsignal(number) not in left}
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
