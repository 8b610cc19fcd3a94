"""Processes with a time limit, which takes their own children along and does not wait for one that cannot end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_LAST = 5.0  # seconds that a process has to be gone after SIGKILL: one inside a driver that hangs never is

#: How a process ended that ended by itself and well, and what is said first of one that was ended.
WELL, TOO_LONG = "it ended with 0", "it took more than"


def run_stage(command: Sequence[str], log: Path, seconds: float) -> str:
    """Run a command in a group of its own, its output in `log`; whatever is left of the group ends with it.

    Returns:
        How it ended, for people.
    """
    with log.open("wb") as words:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"{TOO_LONG} {seconds:g} s and was ended{_end(process)}"
        except BaseException:  # interrupted
            _end(process)
            raise
        _end_group(process)
    return f"it ended with {code}" if code >= 0 else f"signal {-code} ended it"


def ask(command: Sequence[str], seconds: float) -> tuple[str, str]:
    """What a command says, on both of its streams; and empty or why that is not all."""
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words)
        try:
            code = process.wait(seconds)
            failed = f"it ended with {code}" if code else ""
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
            failed = f"no answer within {seconds:g} s"
        words.seek(0)
        return words.read().decode("utf-8", errors="replace"), failed


def _end(process: subprocess.Popen[bytes]) -> str:
    """End a process and its children; what there is to say about it."""
    _end_group(process)
    process.kill()
    try:
        process.wait(_LAST)
    except subprocess.TimeoutExpired:
        return ", but does not go: it waits for the driver"
    return ""


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        with suppress(OSError):
            tree = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
            subprocess.run(tree, capture_output=True, check=False, timeout=_LAST)
    else:
        with suppress(ProcessLookupError, PermissionError):  # a group without members is none
            os.killpg(process.pid, signal.SIGKILL)
