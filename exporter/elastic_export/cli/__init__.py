"""The command `elastic-export`: a thin layer over the library, which never prints. A file a command, of its name."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from elastic_runtime.cli import deaf_once_done, ended_by_ctrl_c

with ended_by_ctrl_c():
    from elastic_export.cli.main import main as run


@contextmanager
def _asked_to_end() -> Iterator[None]:
    """A cancelled CI job and a closed terminal are as Ctrl-C: what was begun, in temporary folders too, is removed."""
    main_thread = threading.current_thread() is threading.main_thread()  # no other may set a handler
    both = (signal.SIGTERM, signal.SIGHUP) if main_thread else ()
    asked = [number for number in both if signal.getsignal(number) is signal.SIG_DFL]
    for number in asked:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in asked:
            signal.signal(number, signal.SIG_DFL)


def main() -> None:
    """The console script."""
    with deaf_once_done(), _asked_to_end():
        run()
