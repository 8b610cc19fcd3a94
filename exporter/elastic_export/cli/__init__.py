"""The command `elastic-export`: a thin layer over the library, which never prints. A file a command, of its name."""

from elastic_runtime.cli import ended_by_ctrl_c

with ended_by_ctrl_c():
    from elastic_export.cli.main import main

__all__ = ["main"]
