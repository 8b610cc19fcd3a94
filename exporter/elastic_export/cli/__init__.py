"""The command `elastic-export`: a thin layer over the library, which never prints. A file a command, of its name."""

import signal

from elastic_runtime.cli import deaf_once_done, ended_by_ctrl_c
from elastic_runtime.signals import handled

with ended_by_ctrl_c():
    from elastic_export.cli.main import main as run


def main() -> None:
    """The console script."""
    # A cancelled CI job and a closed terminal are as Ctrl-C: what was begun, in temporary folders too, is removed.
    with deaf_once_done(), handled(signal.default_int_handler, "SIGTERM", "SIGHUP"):
        run()
