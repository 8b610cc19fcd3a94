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
    ours = _is_ours()
    if ours:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def deaf_once_done() -> Iterator[None]:
    """For a command: however it has ended, Ctrl-C changes that no more.

    With torch in it the interpreter takes a second to end. An exception would be ignored there, with a traceback, and
    from where handlers are gone the signal would end the process, whatever the command has come to.
    """
    try:
        yield
    finally:
        if _is_ours():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _is_ours() -> bool:
    """Whether Ctrl-C raises an exception; a program in the background may have been started to ignore it."""
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return handled and threading.current_thread() is threading.main_thread()


def main() -> None:
    """The console script."""
    with ended_by_ctrl_c():
        from elastic_runtime.cli.run import main as run  # noqa: PLC0415  # see above
    with deaf_once_done():
        run()
