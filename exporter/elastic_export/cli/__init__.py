"""The command `elastic-export`: a thin layer over the library, which never prints. A file a command, of its name."""

from elastic_runtime.cli import deaf_once_done, ended_by_ctrl_c

with ended_by_ctrl_c():
    from elastic_export.cli.main import main as run


def main() -> None:
    """The console script."""
    with deaf_once_done():
        run()
