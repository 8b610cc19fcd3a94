"""The first bytes of a serialized TensorRT-RTX engine, read without TensorRT.

The layout is not documented; it was read off engines of 1.7.1 and holds for one and for several compute capabilities:
`vtrt` at 0, the size of the whole file as unsigned 64-bit little-endian at 16, then four version bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from elastic_runtime.errors import BuildError

MAGIC = b"vtrt"
HEADER_BYTES = 64
_LAYOUT = struct.Struct("<4s12xQ4B")


@dataclass(frozen=True)
class EngineHeader:
    """`size` is that of the whole file in bytes, `version` that of the TensorRT-RTX which wrote it."""

    size: int
    version: tuple[int, int, int, int]


def read_header(path: Path) -> EngineHeader:
    """Header of an engine file.

    Raises:
        BuildError: the file is shorter than a header or is no engine.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        raise BuildError(str(path), expected="a TensorRT-RTX engine", found=f"{len(head)} bytes starting {head[:4]!r}")
    _, size, *version = _LAYOUT.unpack_from(head)
    return EngineHeader(size, (version[0], version[1], version[2], version[3]))


def check_header(path: Path, version: str) -> EngineHeader:
    """Check that the file is whole and written by that TensorRT-RTX version; return its header.

    Raises:
        BuildError: it is not.
    """
    header = read_header(path)
    if header.size != path.stat().st_size:
        raise BuildError(
            str(path), expected=f"{header.size} bytes", found=f"{path.stat().st_size}", todo="export again"
        )
    written = ".".join(map(str, header.version))
    if written != version:
        raise BuildError(str(path), expected=f"an engine of TensorRT-RTX {version}", found=f"one of {written}")
    return header
