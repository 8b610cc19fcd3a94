"""The command `elastic-run`."""

import os
import signal


def main() -> None:
    """The console script: imports take a while, in which Ctrl-C ends the command at once.

    An exception would not do: of one that comes up in the middle of an import, C code makes errors of many kinds.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # a program in the background may have been started to ignore it
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from elastic_runtime.cli.run import main as run  # noqa: PLC0415  # see above

    signal.signal(signal.SIGINT, handler)
    run()
