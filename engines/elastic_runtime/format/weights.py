"""`weights.json`, schema `elastic-weights/1`: where every weight input of a sub-model comes from.

    {"schema": "elastic-weights/1",
     "inputs": {"backbone.layers.0.mixer.in_proj.weight":
       {"file": "../weights/model-00001-of-00005.safetensors", "offset": 123456, "dtype": "bf16",
        "parent_shape": [22656, 5120], "shape": [15456, 3584], "runs": [[[0, 960], [1280, 960], ...], [[0, 3584]]]}}}

    file          relative to the folder of weights.json, at most one `..`, `/` between the parts
    offset        byte of the file where the parent tensor starts; it is row-major and contiguous
    dtype         bf16, fp16 or fp32, of the parent tensor and of the result; in version 2 int8 too
    parent_shape  1 to 8 axes; shape: of the result
    runs          per axis [start, count]: count >= 1, ascending, not overlapping, inside parent_shape, adding up to
                  shape

`elastic-weights/2` is the same with the dtype int8: the stored tensors are those of a quantised parent, its matrices
transposed and joined as the inputs want them. What holds no int8 is written as version 1.

The result is row-major and contiguous. `schema` may be absent and then means version 1; no other field may be added.
With external weights the files are found by their last path part in the folder that the consumer names.

In memory an input is a list of such slices, laid one behind the other along an axis (one matrix of the projections of
queries, keys and values, say). Version 1 has room for one slice an input and no other is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elastic_runtime.errors import REFUSED, BuildError, InputError, advised
from elastic_runtime.format.fresh_memory import fresh_array
from elastic_runtime.format.interface import PRECISIONS, StoredDtype
from elastic_runtime.format.jsonfile import read_json
from elastic_runtime.format.mapped import MappedFile
from elastic_runtime.format.paths import check_relative
from elastic_runtime.format.records import MAX_INT, decode, encode, show
from elastic_runtime.format.safetensors import DTYPES
from elastic_runtime.format.slicing import (
    Array,
    Runs,
    TensorRuns,
    Window,
    contiguous_block,
    joined_shape,
    read_runs,
    windows_of,
)

SCHEMA = "elastic-weights/1"
SCHEMA_INT8 = "elastic-weights/2"
#: What an input may be stored in, by the version of the file.
_STORED: dict[str, tuple[StoredDtype, ...]] = {SCHEMA: PRECISIONS, SCHEMA_INT8: (*PRECISIONS, "int8")}
_READ_LIMIT = 64 << 20  # bytes of JSON; 369 inputs of a 12B with 300 runs each take 2 MB
_MAX_AXES = 8  # a bound for hostile files: tensors of the family have one to three


@dataclass(frozen=True)
class StoredSlice:
    """Runs of a tensor that a file holds: what version 1 says of an input (module docstring)."""

    file: str
    offset: int
    dtype: StoredDtype
    parent_shape: tuple[int, ...]
    shape: tuple[int, ...]
    runs: TensorRuns

    @property
    def nbytes(self) -> int:
        """Bytes of the result."""
        return math.prod(self.shape) * self.itemsize

    @property
    def parent_nbytes(self) -> int:
        """Bytes of the parent tensor in its file."""
        return math.prod(self.parent_shape) * self.itemsize

    @property
    def itemsize(self) -> int:
        """Of an element, bytes."""
        return _numpy(self.dtype).itemsize


@dataclass(frozen=True)
class WeightInput:
    """One weight input of a sub-model: slices of stored tensors, laid one behind the other along `axis`.

    Raises InputError where they are none, of several dtypes, or do not fit together.
    """

    name: str
    parts: tuple[StoredSlice, ...]
    axis: int = 0

    def __post_init__(self) -> None:
        dtypes = list(dict.fromkeys(part.dtype for part in self.parts))
        if len(dtypes) != 1:
            raise InputError(f"weight {self.name}", expected="parts of one dtype", found=" and ".join(dtypes) or "none")
        shapes = [part.shape for part in self.parts]
        if joined_shape(shapes, self.axis) is None:
            expected = f"parts that agree on all axes but {self.axis}"
            raise InputError(f"weight {self.name}", expected=expected, found=" and ".join(map(str, shapes)))

    @property
    def dtype(self) -> StoredDtype:
        """Of every part and of the result."""
        return self.parts[0].dtype

    @property
    def windows(self) -> tuple[Window, ...]:
        """Where each part lies in the result."""
        return windows_of([part.shape for part in self.parts], self.axis)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        return self.windows[0].shape

    @property
    def nbytes(self) -> int:
        """Bytes of the result."""
        return sum(part.nbytes for part in self.parts)


@dataclass(frozen=True)
class WeightRecipe:
    """All weight inputs of a sub-model, in the order of the file. `source` names it in errors."""

    inputs: tuple[WeightInput, ...]
    source: str = "weights.json"

    @property
    def nbytes(self) -> int:
        """Bytes of all results together."""
        return sum(item.nbytes for item in self.inputs)

    @property
    def schema(self) -> str:
        """The oldest version that can say it."""
        return SCHEMA_INT8 if any(item.dtype == "int8" for item in self.inputs) else SCHEMA

    def to_json(self) -> str:
        """The text of weights.json; equal recipes give equal bytes. Raises BuildError: an input of several parts."""
        lines, schema = [], self.schema
        for item in self.inputs:
            where = f"{self.source}: {item.name}"
            if len(item.parts) != 1:
                raise BuildError(
                    where,
                    expected=f"one stored tensor, all that {schema} can say",
                    found=f"{len(item.parts)} laid one behind the other",
                    todo="embed the weights",
                )
            body = encode(check_slice(item.parts[0], where, _STORED[schema]))
            lines.append(f"  {json.dumps(item.name)}: {json.dumps(body, separators=(', ', ': '))}")
        return f'{{"schema": "{schema}",\n "inputs": {{\n' + ",\n".join(lines) + "\n }}\n"

    @classmethod
    def from_json(cls, data: Mapping[str, object], source: str = "weights.json") -> WeightRecipe:
        """Check parsed JSON. Raises InputError that names the file and the input."""
        schema = data.get("schema", SCHEMA)
        if schema not in (SCHEMA, SCHEMA_INT8):
            raise InputError(
                f"{source}: schema",
                expected=f"{SCHEMA!r} or {SCHEMA_INT8!r}",
                found=show(schema),
                todo="use the elastic_runtime that wrote the bundle",
            )
        inputs = _only_inputs(data, source)
        if not isinstance(inputs, dict):
            raise InputError(f"{source}: inputs", expected="an object", found=show(inputs))
        dtypes = _STORED[str(schema)]
        return cls(tuple(_input(n, body, f"{source}: {show(n)}", dtypes) for n, body in inputs.items()), source)

    @classmethod
    def read(cls, path: Path) -> WeightRecipe:
        """Read a weights.json file."""
        with advised("copy the bundle again, or export it again"):
            return cls.from_json(read_json(path, limit=_READ_LIMIT), str(path))


def _only_inputs(data: Mapping[str, object], source: str) -> object:
    unknown = [show(key) for key in data if key not in ("schema", "inputs")]
    if unknown or "inputs" not in data:
        found = f"{unknown[0]!r} as well" if unknown else "no 'inputs'"
        raise InputError(source, expected="only the fields schema and inputs", found=found)
    return data["inputs"]


def _input(name: str, body: object, where: str, dtypes: Sequence[str]) -> WeightInput:
    if isinstance(body, dict) and body.get("dtype", dtypes[0]) not in dtypes:  # the record knows every version's
        raise InputError(f"{where}.dtype", expected=" or ".join(map(repr, dtypes)), found=show(body["dtype"]))
    return WeightInput(name, (check_slice(decode(StoredSlice, body, where), where, dtypes),))


def check_slice(item: StoredSlice, where: str, dtypes: Sequence[str] = PRECISIONS) -> StoredSlice:
    """Return `item` if it keeps the rules of the module docstring, else raise InputError with the subject `where`."""
    check_relative(item.file, f"{where}: file", parents=1)
    axes = len(item.parent_shape)
    if not 1 <= axes <= _MAX_AXES or len(item.shape) != axes or len(item.runs) != axes:
        found = f"{axes}, {len(item.shape)} and {len(item.runs)}"
        raise InputError(
            where, expected=f"parent_shape, shape and runs of 1 to {_MAX_AXES} axes each, equally many", found=found
        )
    if item.dtype not in dtypes:  # made by a program
        raise InputError(f"{where}: dtype", expected=" or ".join(dtypes), found=show(item.dtype))
    for axis, (runs, size, kept) in enumerate(zip(item.runs, item.parent_shape, item.shape, strict=True)):
        _check_runs(runs, size, kept, f"{where}: runs[{axis}]")
    if item.offset + item.parent_nbytes > MAX_INT:
        raise InputError(f"{where}: parent_shape", expected="a tensor below 2^53 bytes", found=show(item.parent_shape))
    return item


def _check_runs(runs: Runs, size: int, kept: int, where: str) -> None:
    end = 0
    for start, count in runs:
        if start < end or count < 1 or start + count > size:
            raise InputError(
                where,
                expected=f"ascending runs [start, count >= 1] within 0..{size}",
                found=f"[{start}, {count}] after {end}",
            )
        end = start + count
    total = sum(count for _, count in runs)
    if total != kept or kept < 1:
        raise InputError(where, expected=f"counts that add up to shape's {kept}, at least 1", found=str(total))


def load_weight(item: WeightInput, directory: Path, *, external: Path | None = None) -> Array:
    """One weight, of the input's shape and dtype: a read-only view of the file where it is one block of it, else a
    copy. Row-major; a view may lie at an odd address, since offsets in a file need not be aligned.

    Args:
        item: what to load.
        directory: the folder of weights.json.
        external: where the parent's files are, for a bundle that holds only their names.

    Raises:
        InputError: the file is missing, ends before the tensor does or cannot be read.
    """
    return next(iter_weights(WeightRecipe((item,)), directory, external=external))[1]


def iter_weights(
    recipe: WeightRecipe,
    directory: Path,
    *,
    external: Path | None = None,
    files: dict[Path, MappedFile] | None = None,
) -> Iterator[tuple[str, Array]]:
    """Yield (name, array) of every input, in the order of the recipe.

    Memory: what is yielded (views of the page cache where an input is one block) plus a band of 4 MiB a thread. All
    files are checked before the first array is made.
    Arguments and errors as `load_weight`; `files` keeps mappings for the next budget that shares them.
    """
    for item, mapped in iter_sources(recipe, directory, external=external, files=files):
        yield item.name, _load(item, mapped)


def iter_sources(
    recipe: WeightRecipe,
    directory: Path,
    *,
    external: Path | None = None,
    files: dict[Path, MappedFile] | None = None,
) -> Iterator[tuple[WeightInput, tuple[MappedFile, ...]]]:
    """Yield every input with the mapped file of each part; as `iter_weights`, for those who cut it themselves."""
    paths = {part.file: _locate(part.file, directory, external) for item in recipe.inputs for part in item.parts}
    for item in recipe.inputs:
        for part in item.parts:
            _check_extent(part, paths[part.file], f"{recipe.source}: {item.name}")
    files = {} if files is None else files
    for item in recipe.inputs:
        yield item, tuple(_mapped(paths[part.file].resolve(), files) for part in item.parts)


def _mapped(path: Path, files: dict[Path, MappedFile]) -> MappedFile:
    if path not in files:
        try:
            files[path] = MappedFile(path)
        except (OSError, ValueError) as error:  # ValueError: it is empty by now
            number, reason = getattr(error, "errno", None) or 0, getattr(error, "strerror", None) or str(error)
            todo = REFUSED.get(number, "copy that file again")
            raise InputError(str(path), expected="a file that can be mapped", found=reason, todo=todo) from error
    return files[path]


def _load(item: WeightInput, files: Sequence[MappedFile]) -> Array:
    dtype = _numpy(item.dtype)
    if len(item.parts) == 1:
        [part], [file] = item.parts, files
        block = contiguous_block(part.parent_shape, part.runs)
        if block is not None:
            return file.array(part.offset + block[0] * dtype.itemsize, dtype, part.shape)
        return _copy(part, file).view(dtype)
    whole = fresh_array(item.shape, _bits(dtype))
    for part, window, file in zip(item.parts, item.windows, files, strict=True):
        _copy(part, file, into=window.view(whole))
    return whole.view(dtype)


def _copy(part: StoredSlice, file: MappedFile, into: Array | None = None) -> Array:
    """The slice, as unsigned integers of its width."""
    dtype = _bits(_numpy(part.dtype))
    return read_runs(file.reader(part.offset), part.parent_shape, dtype, part.runs, into=into)


def _numpy(dtype: StoredDtype) -> np.dtype[Any]:
    """As numpy knows it; the container's word for int8 is its own."""
    return DTYPES["i8" if dtype == "int8" else dtype][1]


def _bits(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Integers as wide: numpy copies them faster than a registered dtype."""
    return np.dtype(f"u{dtype.itemsize}")


def _locate(file: str, directory: Path, external: Path | None) -> Path:
    """Where a file lies: only what is outside of the budget's folder is the parent's, and may be kept elsewhere."""
    return external / file.rsplit("/", 1)[-1] if external is not None and file.startswith("../") else directory / file


def _check_extent(item: StoredSlice, path: Path, where: str) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(
            where,
            expected=f"the file {path}",
            found=error.strerror or "an error",
            todo="name the folder of the weights",
        ) from error
    end = item.offset + item.parent_nbytes
    if end > size:
        raise InputError(
            where,
            expected=f"{path} with at least {end} bytes",
            found=f"{size} bytes",
            todo="copy that file again",
        )
