"""The sha256 of a large file, read once and not used here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from elastic_export.weights.read_ahead import Span, read_ahead

_PIECE = 4 << 20


def streamed_digest(file: Path, *, on_bytes: Callable[[int], None]) -> tuple[int, str]:
    """(size, sha256) of a file, read ahead and past the page cache.

    Args:
        file: read as far as its size is now.
        on_bytes: hears of every piece.

    Raises:
        InputError: it cannot be read, or not as far.
    """
    size, state = file.stat().st_size, hashlib.sha256()
    spans = (Span(file, at, min(_PIECE, size - at)) for at in range(0, size, _PIECE))
    with closing(read_ahead(spans, past_cache=True)) as pieces:
        for piece in pieces:
            state.update(piece)
            on_bytes(len(piece))
    return size, state.hexdigest()
