"""What may be wrong with the standard streams of a command: their encoding on other systems than Linux, an output that
is closed or full, a reader that has gone. Of both commands.

They speak UTF-8, whatever the system's own encoding is. Windows gives a redirected stream the code page of the machine,
which has no signs for most of what a model says; answers are written as UTF-8 bytes anyway, and prompts read as such.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

from elastic_runtime.errors import BuildError


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


def check_output_is_open() -> None:
    """Refuse to run with a closed standard output: what is printed would be lost without a word, and the next file that
    is opened would take its number, and so what other libraries and programs print. Raises BuildError.
    """
    if sys.stdout is None:
        raise BuildError("standard output", expected="an open one", found="a closed one", todo="use > /dev/null")


def forget_output() -> None:
    """What could not be written is not tried again while the interpreter ends, which would complain of it and exit with
    a code of its own.
    """
    with suppress(OSError, ValueError):  # a stream without a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
