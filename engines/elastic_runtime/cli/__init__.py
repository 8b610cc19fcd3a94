"""The command `elastic-run`."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from elastic_runtime.errors import INTERRUPTED


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """For the imports of a command, which take a while: Ctrl-C ends it at once, with INTERRUPTED.

    An exception would not do: of one that comes up in the middle of an import, C code makes errors of many kinds.
    """
    ours = _end_at_ctrl_c()
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_ctrl_c() -> bool:
    """From now on; whether Ctrl-C was this program's, which may have been started in the background to ignore it."""
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ours = is_default and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    return ours


def main() -> None:
    """The console script."""
    with ended_by_ctrl_c():
        from elastic_runtime.cli.run import main as run  # noqa: PLC0415  # see above
    try:
        run()
    finally:
        _end_at_ctrl_c()  # while the interpreter ends nobody catches an exception; what was written has been flushed
