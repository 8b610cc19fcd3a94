"""What a native library writes to standard error by itself, kept from there: of a refusal we say the reason."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_STDERR = 2


class Overheard:
    """The text, once the block has ended."""

    text = ""


@contextmanager
def overheard() -> Iterator[Overheard]:
    """Collect what the process writes to its standard error; where the block ends well it is passed on after all.

    It is the descriptor that is turned away, since a C++ library knows nothing of `sys.stderr`: for a call or two, not
    for work during which other threads have something to say. A process without a standard error has none to keep.
    """
    found = Overheard()
    try:
        kept = os.dup(_STDERR)
    except OSError:
        yield found
        return
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), _STDERR)
            try:
                yield found
            finally:
                os.dup2(kept, _STDERR)
                file.seek(0)
                data = file.read()
                found.text = data.decode("utf-8", "replace")
        with suppress(OSError):  # nobody can be told
            os.write(_STDERR, data)
    finally:
        os.close(kept)
