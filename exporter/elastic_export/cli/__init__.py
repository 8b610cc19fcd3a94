"""The command `elastic-export`: a thin layer over the library, which never prints. A file a command, of its name."""

import sys

try:
    from elastic_export.cli.main import main
except KeyboardInterrupt:  # imports take a second or more, in which Ctrl-C ends the command as it does later
    print("interrupted", file=sys.stderr)
    sys.exit(130)

__all__ = ["main"]
