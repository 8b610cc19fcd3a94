"""A parent in eight bits, as files: `q8-*.safetensors`, which every budget slices in place of the parent's shards.

    <matrix>.int8    I8 [K, N], transposed; the embedding's [V, d] as it lies; joined where one input is read
    <matrix>.scale   F32 [N]: of every row of the parent's matrix what 128 is worth
    <tensor>         whatever is not quantised, under its own name, in the dtype of the export

Each file's metadata names format and parent. A file is complete once it has its name, so one that an export did not
live to use is used by the next one: if it begins with the header that would be written, and so is of the same parent.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elastic_export.checkpoint.conversion import convert, stored_dtype
from elastic_export.checkpoint.reader import Checkpoint, TensorRef
from elastic_export.layers.eight_bits import EightBitMatrix, EightBits
from elastic_export.weights.digested import BUFFER_BYTES, DigestedFile
from elastic_export.weights.rows_int8 import Array, quantised
from elastic_runtime.errors import BuildError
from elastic_runtime.format.safetensors import TensorEntry, encode_header, itemsize

FORMAT = "elastic-q8/1"
PREFIX = "q8-"
#: Bytes of a file's tensors, unless one matrix alone is larger: what a run that is killed may have done in vain.
MAX_FILE_BYTES = 1 << 30

#: Hears of a complete file and its sha256, None where nobody has digested it now.
Heard = Callable[[Path, str | None], object]


class Quantised:
    """The files of one parent in eight bits.

    Args:
        checkpoint: the parent.
        eight_bits: what is quantised of it.
        precision: of the tensors that are not.
        parent: what tells this parent from others; every file has it in its metadata.
        max_file_bytes: bound of a file's data.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        eight_bits: EightBits,
        *,
        precision: str,
        parent: str,
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self.eight_bits, self._checkpoint = eight_bits, checkpoint
        groups = _groups(list(_stored(checkpoint, eight_bits, precision)), max_file_bytes)
        names = (f"{PREFIX}{i + 1:05}-of-{len(groups):05}.safetensors" for i in range(len(groups)))
        self._files = [_File.of(name, group, parent) for name, group in zip(names, groups, strict=True)]

    def found(self, folder: Path) -> dict[str, TensorRef] | None:
        """What is stored, by its name, where `folder` has all files, else None; only their headers are read."""
        if not all(file.is_in(folder) for file in self._files):
            return None
        return {
            e.name: TensorRef(e.name, folder / file.name, e.dtype, e.shape, e.offset, e.nbytes)
            for file in self._files
            for e in file.entries.values()
        }

    def write(self, folder: Path, heard: Heard) -> None:
        """Write the files that `folder` does not have; `heard` hears of each in order as soon as it is complete.

        What another parent or an ended run left there, and no file of this one will replace, is removed: it has the
        size of a model, and nobody else would.

        Raises:
            InputError: a weight is not finite; the tensor is named.
            BuildError: a file cannot be written, or the precision cannot hold a value of what is not quantised.
        """
        try:
            # A file as old as the parent may be of what its shards held before.
            changed = max(shard.stat().st_mtime_ns for shard in self._checkpoint.shards)
            wanted = {file.name for file in self._files}
            for left in folder.glob(f"{PREFIX}*"):
                if left.name not in wanted:
                    left.unlink()
            for file in self._files:
                there = file.is_in(folder) and (folder / file.name).stat().st_mtime_ns > changed
                heard(folder / file.name, None if there else _write(self._checkpoint, folder / file.name, file))
        except OSError as error:
            todo = "free some space" if error.errno == errno.ENOSPC else "name another output"
            found, expected = error.strerror or str(error), "to write the quantised parent"
            raise BuildError(str(folder), expected=expected, found=found, todo=todo) from None


@dataclass(frozen=True)
class _Item:
    """A matrix in eight bits, or a tensor that stays; `tensors` is what is stored of it: name -> (dtype, shape)."""

    matrix: EightBitMatrix | None
    tensors: dict[str, tuple[str, tuple[int, ...]]]

    @property
    def nbytes(self) -> int:
        return sum(math.prod(shape) * itemsize(dtype) for dtype, shape in self.tensors.values())


def _stored(checkpoint: Checkpoint, eight_bits: EightBits, precision: str) -> Iterator[_Item]:
    """In the order of the parent's tensors, a joined matrix at the place of its first."""
    matrices = eight_bits.tensors
    for name, tensor in checkpoint.tensors.items():
        matrix = matrices.get(name)
        if matrix is None:
            dtype = stored_dtype(tensor.dtype, checkpoint.dtype, precision)
            yield _Item(None, {name: (dtype, tensor.shape)})
        elif matrix.names[0] == name:
            yield _Item(matrix, {matrix.values: ("i8", matrix.shape), matrix.scales: ("fp32", (matrix.rows,))})


def _groups(items: Sequence[_Item], most: int) -> list[list[_Item]]:
    groups, size = list[list[_Item]]([[]]), 0
    for item in items:
        if groups[-1] and size + item.nbytes > most:
            groups.append([])
            size = 0
        groups[-1].append(item)
        size += item.nbytes
    return groups


@dataclass(frozen=True)
class _File:
    """One of the files: what it holds, and its header, which no file of another parent has."""

    name: str
    items: Sequence[_Item]
    header: bytes
    entries: Mapping[str, TensorEntry]

    @classmethod
    def of(cls, name: str, items: Sequence[_Item], parent: str) -> _File:
        tensors = {n: kind for item in items for n, kind in item.tensors.items()}
        return cls(name, items, *encode_header(tensors, {"format": FORMAT, "parent": parent}))

    def is_in(self, folder: Path) -> bool:
        """Whether that folder has it, by its header and size."""
        path = folder / self.name
        if not path.is_file() or path.stat().st_size != len(self.header) + sum(e.nbytes for e in self.entries.values()):
            return False
        with path.open("rb") as file:
            return file.read(len(self.header)) == self.header


def _write(checkpoint: Checkpoint, path: Path, file: _File) -> str:
    """Write one file; returns its sha256."""
    part = path.with_suffix(".part")
    with DigestedFile(part) as out:
        _append(out, np.frombuffer(file.header, np.uint8))
        for item in file.items:
            for array in _arrays(checkpoint, item):
                _append(out, array.reshape(-1).view(np.uint8))
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # before it has its name: whoever finds that trusts the bytes
    finally:
        os.close(descriptor)
    part.replace(path)
    return out.digest


def _arrays(checkpoint: Checkpoint, item: _Item) -> Iterator[Array]:
    """The bytes of an item in the order of its tensors."""
    if item.matrix is not None:
        yield from quantised(checkpoint, item.matrix)
        return
    for name, (dtype, _) in item.tensors.items():
        yield np.ascontiguousarray(convert(checkpoint.read(name), dtype, name))
        checkpoint.release(name)


def _append(out: DigestedFile, data: Array) -> None:
    for at in range(0, len(data), BUFFER_BYTES):
        piece = data[at : at + BUFFER_BYTES]
        np.frombuffer(out.room(len(piece)), np.uint8)[:] = piece


def is_quantised_file(path: str) -> bool:
    """Whether that path in a bundle is one of these files."""
    return path.startswith(f"weights/{PREFIX}")
