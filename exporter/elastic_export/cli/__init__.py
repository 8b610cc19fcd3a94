"""The command `elastic-export`: a thin layer over the library, which never prints. A command has the file of its name."""

from elastic_export.cli.main import main

__all__ = ["main"]
