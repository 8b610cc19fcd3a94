"""The command `elastic-run`."""

import sys


def main() -> None:
    """The console script: imports take a while, in which Ctrl-C ends the command as it does later."""
    try:
        from elastic_runtime.cli.run import main as run  # noqa: PLC0415  # see above
    except KeyboardInterrupt:
        sys.exit(130)
    run()
