"""A parent in eight bits, as files: `q8-*.safetensors`, which every budget slices in place of the parent's shards.

    <matrix>.int8    I8 [K, N], transposed; the embedding's [V, d] as it lies; joined where one input is read
    <matrix>.scale   F32 [N]: of every row of the parent's matrix what 128 is worth
    <tensor>         whatever is not quantised, under its own name, in the dtype of the export

Each file's metadata names format and parent. A file is complete once it has its name, so one that an export did not
live to use is used by the next one: if it begins with the header that would be written, and so is of the same parent,
and was written by the same quantiser. Beside it lies, as `q8-*.json`, who that was and what rounding took from the
budgets (counted.py), which no bundle holds: of a budget its report says it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elastic_export.checkpoint.conversion import convert, stored_dtype
from elastic_export.checkpoint.reader import Checkpoint, TensorRef
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBitMatrix, EightBits
from elastic_export.progress import Gauge
from elastic_export.weights.counted import Kept, complete
from elastic_export.weights.digested import BUFFER_BYTES, DigestedFile
from elastic_export.weights.row_losses import Losses
from elastic_export.weights.rows_int8 import Array, measure, no_number, quantised
from elastic_export.weights.weight_loss import WeightTally
from elastic_runtime.errors import NO_ROOM, BuildError, room_advice
from elastic_runtime.format.safetensors import TensorEntry, encode_header, itemsize

FORMAT = "elastic-q8/1"
PREFIX = "q8-"
#: What the folder beside a bundle is called in which they lie until it is published.
UNFINISHED = "quantised"
#: Bytes of a file's tensors, unless one matrix alone is larger: what a run that is killed may have done in vain.
MAX_FILE_BYTES = 1 << 30
_BAND = 64  # rows of a matrix that stays as it is that are looked at at once

#: Hears of a complete file and its sha256, None where nobody has digested it now.
Heard = Callable[[Path, str | None], object]


class Quantised:
    """The files of one parent in eight bits.

    Args:
        checkpoint: the parent.
        eight_bits: what is quantised of it.
        budgets: of which it is counted what rounding takes from them.
        precision: of the tensors that are not.
        parent: what tells this parent from others; every file has it in its metadata.
        quantiser: what tells who quantises it from others, who may round otherwise.
        max_file_bytes: bound of a file's data.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        eight_bits: EightBits,
        budgets: Iterable[Budget],
        *,
        precision: str,
        parent: str,
        quantiser: str = "",
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self._checkpoint = checkpoint
        self._kept = Kept(checkpoint.architecture, checkpoint.prefix, budgets, quantiser)
        groups = _groups(list(_stored(checkpoint, eight_bits, precision)), max_file_bytes)
        names = (f"{PREFIX}{i + 1:05}-of-{len(groups):05}.safetensors" for i in range(len(groups)))
        self._files = [_File.of(name, group, parent) for name, group in zip(names, groups, strict=True)]
        self._done = 0

    def gauge(self) -> Gauge:
        """How far `write` is, or `measure`: bytes of what is stored, of all files."""
        return Gauge(sum(file.nbytes for file in self._files), lambda: self._done)

    def found(self, folder: Path) -> dict[str, TensorRef] | None:
        """What is stored, by its name, where `folder` has all files, else None; only their headers are read."""
        if not all(file.is_in(folder) for file in self._files):
            return None
        return {
            e.name: TensorRef(e.name, folder / file.name, e.dtype, e.shape, e.offset, e.nbytes)
            for file in self._files
            for e in file.entries.values()
        }

    def write(self, folder: Path, heard: Heard) -> dict[str, WeightTally]:
        """Write the files that `folder` does not have; `heard` hears of each in order as soon as it is complete.

        Returns:
            What each budget lost by being rounded, whoever wrote the files.

        What another parent or an ended run left there, and no file of this one will replace, is removed: it has the
        size of a model, and nobody else would.

        Raises:
            InputError: a weight is not finite; the tensor is named.
            BuildError: a file cannot be written, or the precision cannot hold a value of what is not quantised.
        """
        try:
            # A file as old as the parent may be of what its shards held before.
            changed = max(shard.stat().st_mtime_ns for shard in self._checkpoint.shards)
            wanted = {name for file in self._files for name in (file.name, counted_beside(folder / file.name).name)}
            for left in left_in(folder):
                if left.name not in wanted:
                    left.unlink()
            lost = list[dict[str, WeightTally]]()
            for file in self._files:
                path = folder / file.name
                there = file.is_in(folder) and path.stat().st_mtime_ns > changed
                there = there and self._kept.is_of(counted_beside(path), file.header)
                digest, of_it = (None, self._counted(folder, file)) if there else self._write(folder, file)
                lost.append(of_it)
                heard(path, digest)
            return self._sum(lost)
        except OSError as error:
            todo = room_advice(error, "free some space") if error.errno in NO_ROOM else "name another output"
            found, expected = error.strerror or str(error), "to write the quantised parent"
            raise BuildError(str(folder), expected=expected, found=found, todo=todo) from None

    def measure(self) -> dict[str, WeightTally]:
        """What each budget loses, where all files are there: the parent is read again. Raises as `write` does."""
        return self._sum([self._measured(file) for file in self._files])

    def _sum(self, lost: Iterable[Mapping[str, WeightTally]]) -> dict[str, WeightTally]:
        """Of all files, in their order."""
        parts = list(lost)
        return {budget: sum((part[budget] for part in parts), WeightTally()) for budget in self._kept.runs}

    def _write(self, folder: Path, file: _File) -> tuple[str, dict[str, WeightTally]]:
        """Write one file, and beside it what was lost, first: whoever finds the file finds both. Returns its sha256."""
        path, losses = folder / file.name, Losses(self._kept.runs)
        path.unlink(missing_ok=True)  # another quantiser's, which would be taken for the one that is told of beside it
        part = path.with_suffix(".part")
        with DigestedFile(part) as out:
            _append(out, np.frombuffer(file.header, np.uint8))
            for item in file.items:
                for array in _arrays(self._checkpoint, item, losses):
                    _append(out, array.reshape(-1).view(np.uint8))
                self._done += item.nbytes
        self._kept.write(counted_beside(path), file.header, losses.tallies)
        complete(part, path)
        return out.digest, losses.tallies

    def _counted(self, folder: Path, file: _File) -> dict[str, WeightTally]:
        """What was lost of a file that is there; counted again where an export of other budgets wrote it."""
        beside = counted_beside(folder / file.name)
        lost = self._kept.read(beside, file.header)
        if lost is None:
            lost = self._measured(file)
            self._kept.write(beside, file.header, lost)
        else:
            self._done += file.nbytes
        return lost

    def _measured(self, file: _File) -> dict[str, WeightTally]:
        losses = Losses(self._kept.runs)
        for item in file.items:
            if item.matrix is not None:
                measure(self._checkpoint, item.matrix, losses)
            else:
                for _ in _arrays(self._checkpoint, item, losses):
                    pass
            self._done += item.nbytes
        return losses.tallies


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

    @property
    def nbytes(self) -> int:
        """Of its tensors."""
        return sum(item.nbytes for item in self.items)

    def is_in(self, folder: Path) -> bool:
        """Whether that folder has it, by its header and size."""
        path = folder / self.name
        if not path.is_file() or path.stat().st_size != len(self.header) + self.nbytes:
            return False
        with path.open("rb") as file:
            return file.read(len(self.header)) == self.header


def _arrays(checkpoint: Checkpoint, item: _Item, losses: Losses) -> Iterator[Array]:
    """The bytes of an item in the order of its tensors; what is lost on their way is counted in `losses`."""
    if item.matrix is not None:
        yield from quantised(checkpoint, item.matrix, losses)
        return
    for name, (dtype, shape) in item.tensors.items():
        plain = checkpoint.read(name)
        stored = np.ascontiguousarray(convert(plain, dtype, name))
        if len(shape) == 2:  # an odd matrix
            _count(name, plain, stored, losses)
        yield stored
        checkpoint.release(name)


def _count(name: str, plain: Array, stored: Array, losses: Losses) -> None:
    """A matrix that another dtype than the parent's may have taken something from.

    Raises:
        InputError: a value is not finite.
    """
    with losses.rows(name, plain.shape) as rows:
        for at in range(0, len(plain) if rows else 0, _BAND):
            before, after = (array[at : at + _BAND].astype(np.float64) for array in (plain, stored))
            if not np.isfinite(before).all():
                raise no_number(name, "finite values", "a NaN or an infinity")
            assert rows is not None
            rows.put(at, before, after, np.ones(len(before)))


def _append(out: DigestedFile, data: Array) -> None:
    for at in range(0, len(data), BUFFER_BYTES):
        piece = data[at : at + BUFFER_BYTES]
        np.frombuffer(out.room(len(piece)), np.uint8)[:] = piece


def counted_beside(file: Path) -> Path:
    """Where it lies what budgets lost of one of these files, in a folder that no bundle is."""
    return file.with_suffix(".json")


def left_in(folder: Path) -> list[Path]:
    """What runs that ended have left in such a folder, of whichever parent."""
    return list(folder.glob(f"{PREFIX}*"))


def is_quantised_file(path: str) -> bool:
    """Whether that path in a bundle is one of these files."""
    return path.startswith(f"weights/{PREFIX}")
