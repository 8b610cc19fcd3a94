"""The process that digests one large file: `python -m elastic_export.bundle.digest_child FILE`, see digest_process.py.

It prints the bytes read since the last line, line by line, and in the last one size and sha256.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from elastic_export.engine.isolation import die_with_parent
from elastic_export.weights.streamed_digest import streamed_digest

#: The compile is what others wait for: a digest takes what it leaves of the processors.
_NICE = 10
_TOLD = 64 << 20  # bytes between two lines


def main() -> None:
    """Digest the file that the command line names."""
    die_with_parent()
    os.nice(_NICE)
    untold = 0

    def tell(count: int) -> None:
        nonlocal untold
        untold += count
        if untold >= _TOLD:
            print(untold, flush=True)
            untold = 0

    size, digest = streamed_digest(Path(sys.argv[1]), on_bytes=tell)
    print(untold, flush=True)
    print(size, digest, flush=True)


if __name__ == "__main__":
    main()
