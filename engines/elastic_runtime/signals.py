"""What a signal does for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def handled(handler: Any, *names: str) -> Iterator[None]:
    """Give signals a handler: those of the names that this system has and of which nobody has said anything else: that
    they are ignored, as `nohup` says of SIGHUP, or what the program around this does.
    """
    ours = threading.current_thread() is threading.main_thread()  # no other thread may say what a signal does
    before = dict[int, Any]()
    try:
        for number in (getattr(signal, name) for name in names if ours and hasattr(signal, name)):
            if (was := signal.getsignal(number)) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = was
                signal.signal(number, handler)
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
