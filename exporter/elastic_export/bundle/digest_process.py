"""The digest of a large file in a process of its own.

In a thread it would stand in line for the interpreter after every piece, behind a compile that seldom lets go of it,
and the compile behind the digest: the trace of a 12B took 10 s instead of 6 for it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

from elastic_export.packages import child_path
from elastic_export.weights.streamed_digest import streamed_digest

_LINE = re.compile(r"(\d+)(?: ([0-9a-f]{64}))?\n")


def digest_apart(file: Path, *, on_bytes: Callable[[int], None]) -> tuple[int, str]:
    """(size, sha256) of a file, as `streamed_digest` has it. Nothing survives this call.

    Where the process does not start or gives no digest, for whatever reason, this one reads the file itself.

    Args:
        file: read as far as its size is now.
        on_bytes: hears of what was read, now and then; what it raises ends the process.

    Raises:
        InputError: it cannot be read, or not as far.
    """
    told = 0
    with closing(_lines(file)) as lines:
        for count, digest in lines:
            if digest:
                return count, digest
            told += count
            on_bytes(count)
    on_bytes(-told)
    return streamed_digest(file, on_bytes=on_bytes)


def _lines(file: Path) -> Generator[tuple[int, str], None, None]:
    """(bytes read since the last one, "") time and again, at last (size, sha256); fewer where the process gives up."""
    if not sys.executable:  # Python inside another program need not know one
        return
    try:
        child = _started(file)
    except OSError:
        return
    with child:
        try:
            for line in child.stdout or ():
                match = _LINE.fullmatch(line)
                if match is None:
                    return
                yield int(match[1]), match[2] or ""
        finally:
            child.kill()


def _started(file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "elastic_export.bundle.digest_child", str(file.absolute())],
        env={**os.environ, "PYTHONPATH": child_path(os.environ)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches us alone; we end the child
        encoding="ascii",
        errors="replace",  # what else may print there is no line of ours
    )
