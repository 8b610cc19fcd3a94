"""The first bytes of a serialized TensorRT-RTX engine, read without TensorRT.

The layout is not documented; it was read off engines of 1.7.1 and holds for one and for several compute capabilities:
`vtrt` at 0, the size of the whole file as unsigned 64-bit little-endian at 16, then a byte each of major, minor and
patch version. That these three are the version is known because `Runtime.get_engine_validity` reports another one for
an engine where any of them differs, and for no other byte near. The byte after them is the build number of 1.7.1.116,
which that function does not read either: a build above 255 has to stand elsewhere, so it is not compared.

Why not ask that function: without a driver, and a build needs none, it ends with INVALID and no reason for whole
engines and for those of another version alike.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from elastic_runtime.errors import BuildError

MAGIC = b"vtrt"
HEADER_BYTES = 64
_LAYOUT = struct.Struct("<4s12xQ3B")


@dataclass(frozen=True)
class EngineHeader:
    """`size` is that of the whole file in bytes, `version` (major, minor, patch) that of the TensorRT-RTX which wrote
    it.
    """

    size: int
    version: tuple[int, int, int]


def read_header(path: Path) -> EngineHeader:
    """Header of an engine file.

    Raises:
        BuildError: the file is shorter than a header or is no engine.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        raise BuildError(
            str(path),
            expected="a TensorRT-RTX engine",
            found=f"{len(head)} bytes starting {head[:4]!r}",
            todo="export again; if it stays so, install the tensorrt-rtx that pyproject.toml asks for",
        )
    _, size, major, minor, patch = _LAYOUT.unpack_from(head)
    return EngineHeader(size, (major, minor, patch))


def check_header(path: Path, version: str) -> EngineHeader:
    """Check that the file is whole and written by that TensorRT-RTX version, up to the patch; return its header.

    Raises:
        BuildError: it is not.
    """
    header = read_header(path)
    if header.size != path.stat().st_size:
        raise BuildError(
            str(path), expected=f"{header.size} bytes", found=f"{path.stat().st_size}", todo="export again"
        )
    release, written = ".".join(version.split(".")[:3]), ".".join(map(str, header.version))
    if written != release:
        raise BuildError(
            str(path),
            expected=f"an engine of TensorRT-RTX {release}",
            found=f"one of {written}",
            todo="install one tensorrt-rtx only: its Python package and its libraries are of different versions",
        )
    return header
