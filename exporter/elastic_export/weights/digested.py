"""Writing a large file whose digest is known when it is written."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

_AHEAD = 4  # pieces that are written and not yet digested


def write_digested(path: Path, pieces: Iterable[memoryview]) -> str:
    """Write pieces one behind the other; returns the sha256 of all in hex.

    A thread digests a piece while the next ones are made and written, so no byte is read again.

    Args:
        path: replaced where it is there.
        pieces: each keeps its bytes until a few more are taken from the iterable.
    """
    state, waiting = hashlib.sha256(), deque[Future[None]]()
    with path.open("wb", buffering=0) as out, ThreadPoolExecutor(1, "digest") as pool:
        for piece in pieces:
            waiting.append(pool.submit(state.update, piece))
            rest = piece
            while rest:
                rest = rest[out.write(rest) :]
            if len(waiting) > _AHEAD:
                waiting.popleft().result()
        for left in waiting:
            left.result()
    return state.hexdigest()
