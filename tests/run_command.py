"""`elastic-run` for its tests: in this process, since starting another one costs a second."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

import pytest

from elastic_runtime.cli.run import main

#: The command as a process of its own.
COMMAND = [sys.executable, "-m", "elastic_runtime.cli.run"]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def run_here(*arguments: object, data: bytes = b"") -> Done:
    """What the command with these arguments says, `data` on its standard input."""
    out, err, given = (
        io.TextIOWrapper(io.BytesIO(), "utf-8"),
        io.StringIO(),
        io.TextIOWrapper(io.BytesIO(data), "utf-8"),
    )
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        threads = () if {"--bring-up", "--verify"} & set(arguments) else ("--threads", "1")
        patch.setattr(sys, "argv", ["elastic-run", *threads, *map(str, arguments)])
        patch.setattr(sys, "stdin", given)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    out.flush()
    return Done(code, out.buffer.getvalue().decode("utf-8"), err.getvalue())
