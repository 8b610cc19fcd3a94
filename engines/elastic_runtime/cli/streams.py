"""What the standard streams are like on other systems than Linux: their encoding, and a reader that has gone.

They speak UTF-8, whatever the system's own encoding is. Windows gives a redirected stream the code page of the machine,
which has no signs for most of what a model says; answers are written as UTF-8 bytes anyway, and prompts read as such.
"""

from __future__ import annotations

import errno
import io
import sys


def speak_utf8() -> None:
    """Standard input refuses what is no UTF-8; standard error writes what cannot be written as an escape, as ever."""
    for stream, errors in ((sys.stdin, "strict"), (sys.stdout, "strict"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # a test's stream, or none, is left as it is
            stream.reconfigure(encoding="utf-8", errors=errors)


def is_reader_gone(error: OSError) -> bool:
    """Whether writing failed because nobody reads any more, which Windows calls an invalid argument."""
    if sys.platform == "win32" and error.errno == errno.EINVAL and error.filename is None:
        return True
    return isinstance(error, BrokenPipeError)
