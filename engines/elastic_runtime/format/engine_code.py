"""Code for the host inside an engine file, found without TensorRT: a plugin library that travels in it is such code.

TensorRT runs what an engine carries, so whoever loads one must know what that is first. A library is stored as it is
(measured with TensorRT-RTX 1.7.1: the engine grows by its bytes and holds them), and what a loader takes begins with
the header of an ELF file. An engine holds many of those: kernels are ELF files of NVIDIA's machine, which no host runs.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_MAGIC = b"\x7fELF"
#: Class, data, version; then, at 16, type, machine, version.
_HEADER = struct.Struct("<4s3B9x2HI")
#: EM_CUDA of NVIDIA's ELF files.
_CUDA_MACHINE = 190
_CLASSES, _LITTLE, _CURRENT = (1, 2), 1, 1


@dataclass(frozen=True, order=True)
class Code:
    """Host code: `size` bytes of that digest."""

    size: int
    sha256: str


@dataclass(frozen=True)
class HostCode:
    """What host code a file holds: known pieces, and the offsets of whatever else could be loaded."""

    known: tuple[Code, ...]
    unknown: tuple[int, ...]


def host_code(data: bytes, known: Iterable[Code]) -> HostCode:
    """The host code in an engine's bytes; `known` are the pieces to recognise.

    What lies inside a recognised piece belongs to it.
    """
    pieces, found, unknown, end = sorted(set(known)), list[Code](), list[int](), 0
    for offset in _images(data):
        if offset < end:
            continue
        piece = next((code for code in pieces if _is_there(data, offset, code)), None)
        if piece is None:
            unknown.append(offset)
        else:
            found.append(piece)
            end = offset + piece.size
    return HostCode(tuple(found), tuple(unknown))


def _is_there(data: bytes, offset: int, code: Code) -> bool:
    piece = memoryview(data)[offset : offset + code.size]
    return len(piece) == code.size and hashlib.sha256(piece).hexdigest() == code.sha256


def _images(data: bytes) -> Iterator[int]:
    """Offsets of ELF headers of other machines than NVIDIA's; those that no loader would take are left out.

    Big-endian files are none that a loader takes here, and are told of all the same.
    """
    offset = data.find(_MAGIC)
    while offset >= 0:
        if len(data) - offset >= _HEADER.size:
            _, kind, order, version, _, machine, _ = _HEADER.unpack_from(data, offset)
            little = order == _LITTLE
            if (
                kind in _CLASSES
                and order in (1, 2)
                and version == _CURRENT
                and not (little and machine == _CUDA_MACHINE)
            ):
                yield offset
        offset = data.find(_MAGIC, offset + 1)
