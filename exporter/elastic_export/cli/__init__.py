"""The command `elastic-export`: a thin layer over the library, which never prints. A file a command, of its name."""

from elastic_export.cli.main import main

__all__ = ["main"]
