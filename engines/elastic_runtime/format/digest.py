"""SHA-256 of files, read once in large pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

_PIECE = 4 << 20


def file_digest(path: Path, *, on_bytes: Callable[[int], None] | None = None) -> tuple[int, str]:
    """(size in bytes, sha256 in lower-case hex) of a file; `on_bytes` hears of every piece read."""
    state, size, piece = hashlib.sha256(), 0, bytearray(_PIECE)
    view = memoryview(piece)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            state.update(view[:count])
            size += count
            if on_bytes:
                on_bytes(count)
    return size, state.hexdigest()


def is_digest(text: str) -> bool:
    """Whether `text` has the form of a sha256: 64 lower-case hex digits."""
    return len(text) == 64 and all(sign in "0123456789abcdef" for sign in text)
