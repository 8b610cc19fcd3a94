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
    handler = signal.getsignal(signal.SIGINT)  # a program in the background may have been started to ignore it
    ours = handler is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, handler)


def main() -> None:
    """The console script."""
    with ended_by_ctrl_c():
        from elastic_runtime.cli.run import main as run  # noqa: PLC0415  # see above
    run()
