"""`weights.json`, schema `elastic-weights/1`: where every weight input of a sub-model comes from.

    {"schema": "elastic-weights/1",
     "inputs": {"backbone.layers.0.mixer.in_proj.weight":
       {"file": "../weights/model-00001-of-00005.safetensors", "offset": 123456, "dtype": "bf16",
        "parent_shape": [22656, 5120], "shape": [15456, 3584], "runs": [[[0, 960], [1280, 960], ...], [[0, 3584]]]}}}

    file          relative to the folder of weights.json, at most one `..`, `/` between the parts
    offset        byte of the file where the parent tensor starts; it is row-major and contiguous
    dtype         bf16, fp16 or fp32, of the parent tensor and of the result
    parent_shape  1 to 8 axes; shape: of the result
    runs          per axis [start, count]: count >= 1, ascending, not overlapping, inside parent_shape, adding up to
                  shape

The result is row-major and contiguous. `schema` may be absent and then means version 1; no other field may
be added. With external weights the files are found by their last path part in the folder that the consumer names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from elastic_runtime.errors import InputError
from elastic_runtime.jsonfile import read_json
from elastic_runtime.mapped import MappedFile
from elastic_runtime.paths import check_relative
from elastic_runtime.records import MAX_INT, decode, encode, show
from elastic_runtime.safetensors import DTYPES, itemsize
from elastic_runtime.slicing import Array, Runs, TensorRuns, contiguous_block, copy_runs

SCHEMA = "elastic-weights/1"
WeightDtype = Literal["bf16", "fp16", "fp32"]
WEIGHT_DTYPES: tuple[WeightDtype, ...] = get_args(WeightDtype)
_READ_LIMIT = 64 << 20  # bytes of JSON; 369 inputs of a 12B with 300 runs each take 2 MB
_MAX_AXES = 8


@dataclass(frozen=True)
class WeightInput:
    """One weight input of a sub-model: runs of a tensor of the parent (module docstring)."""

    name: str
    file: str
    offset: int
    dtype: WeightDtype
    parent_shape: tuple[int, ...]
    shape: tuple[int, ...]
    runs: TensorRuns

    @property
    def nbytes(self) -> int:
        """Bytes of the result."""
        return math.prod(self.shape) * itemsize(self.dtype)

    @property
    def parent_nbytes(self) -> int:
        """Bytes of the parent tensor in its file."""
        return math.prod(self.parent_shape) * itemsize(self.dtype)


@dataclass(frozen=True)
class WeightRecipe:
    """All weight inputs of a sub-model, in the order of the file. `source` names it in errors."""

    inputs: tuple[WeightInput, ...]
    source: str = "weights.json"

    @property
    def nbytes(self) -> int:
        """Bytes of all results together."""
        return sum(item.nbytes for item in self.inputs)

    def to_json(self) -> str:
        """The text of weights.json; equal recipes give equal bytes."""
        lines = []
        for item in self.inputs:
            check_input(item, f"{self.source}: {item.name}")
            body = {key: value for key, value in encode(item).items() if key != "name"}
            lines.append(f"  {json.dumps(item.name)}: {json.dumps(body, separators=(', ', ': '))}")
        return f'{{"schema": "{SCHEMA}",\n "inputs": {{\n' + ",\n".join(lines) + "\n }}\n"

    @classmethod
    def from_json(cls, data: Mapping[str, object], source: str = "weights.json") -> WeightRecipe:
        """Check parsed JSON. Raises InputError that names the file and the input."""
        schema = data.get("schema", SCHEMA)
        if schema != SCHEMA:
            raise InputError(
                f"{source}: schema",
                expected=repr(SCHEMA),
                found=show(schema),
                todo="use the elastic_runtime that wrote the bundle",
            )
        inputs = _only_inputs(data, source)
        if not isinstance(inputs, dict):
            raise InputError(f"{source}: inputs", expected="an object", found=show(inputs))
        items = (decode(WeightInput, body, f"{source}: {show(name)}", name=name) for name, body in inputs.items())
        return cls(tuple(check_input(item, f"{source}: {show(item.name)}") for item in items), source)

    @classmethod
    def read(cls, path: Path) -> WeightRecipe:
        """Read a weights.json file."""
        return cls.from_json(read_json(path, limit=_READ_LIMIT), str(path))


def _only_inputs(data: Mapping[str, object], source: str) -> object:
    unknown = [show(key) for key in data if key not in ("schema", "inputs")]
    if unknown or "inputs" not in data:
        found = f"{unknown[0]!r} as well" if unknown else "no 'inputs'"
        raise InputError(source, expected="only the fields schema and inputs", found=found)
    return data["inputs"]


def check_input(item: WeightInput, where: str) -> WeightInput:
    """Return `item` if it keeps the rules of the module docstring, else raise InputError with the subject `where`."""
    check_relative(item.file, f"{where}: file", parents=1)
    axes = len(item.parent_shape)
    if not 1 <= axes <= _MAX_AXES or len(item.shape) != axes or len(item.runs) != axes:
        found = f"{axes}, {len(item.shape)} and {len(item.runs)}"
        raise InputError(
            where, expected=f"parent_shape, shape and runs of 1 to {_MAX_AXES} axes each, equally many", found=found
        )
    if item.dtype not in WEIGHT_DTYPES:
        raise InputError(f"{where}: dtype", expected=" or ".join(WEIGHT_DTYPES), found=show(item.dtype))
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
    """One weight: a read-only view of the file where the slice is one block of it, else a copy.

    Args:
        item: what to load.
        directory: the folder of weights.json.
        external: where the parent's files are, for a bundle that holds only their names.

    Raises:
        InputError: the file is missing or ends before the tensor does.
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

    Memory: what is yielded (views of the page cache where a slice is one block) plus a band of 8 MiB a thread; pages of
    the parent that have been copied are unmapped again. All files are checked before the first array is made.
    Arguments and errors as `load_weight`; `files` keeps mappings for the next budget that shares them.
    """
    for item, file in iter_sources(recipe, directory, external=external, files=files):
        yield item.name, _cut(item, file)


def iter_sources(
    recipe: WeightRecipe,
    directory: Path,
    *,
    external: Path | None = None,
    files: dict[Path, MappedFile] | None = None,
) -> Iterator[tuple[WeightInput, MappedFile]]:
    """Yield every input with the mapped file that holds it; as `iter_weights`, for those who cut it themselves."""
    paths = {item.file: _locate(item.file, directory, external) for item in recipe.inputs}
    for item in recipe.inputs:
        _check_extent(item, paths[item.file], recipe.source)
    files = {} if files is None else files
    for item in recipe.inputs:
        path = paths[item.file].resolve()
        if path not in files:
            files[path] = MappedFile(path)
        yield item, files[path]


def _cut(item: WeightInput, file: MappedFile) -> Array:
    dtype = DTYPES[item.dtype][1]
    block = contiguous_block(item.parent_shape, item.runs)
    if block is not None:
        return file.array(item.offset + block[0] * dtype.itemsize, dtype, item.shape)
    bits = np.dtype(f"u{dtype.itemsize}")  # numpy copies integers faster than a registered dtype
    source = file.array(item.offset, bits, item.parent_shape)
    row = source[:1].nbytes

    def fetch(first: int, rows: int) -> None:
        file.fetch(item.offset + first * row, rows * row)

    def release(first: int, rows: int) -> None:
        file.release(item.offset + first * row, rows * row)

    return copy_runs(source, item.runs, fetch=fetch, release=release).view(dtype)


def _locate(file: str, directory: Path, external: Path | None) -> Path:
    return external / file.rsplit("/", 1)[-1] if external is not None and file.startswith("../") else directory / file


def _check_extent(item: WeightInput, path: Path, source: str) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(
            f"{source}: {item.name}",
            expected=f"the file {path}",
            found=error.strerror or "an error",
            todo="name the folder of the weights",
        ) from error
    end = item.offset + item.parent_nbytes
    if end > size:
        raise InputError(f"{source}: {item.name}", expected=f"{path} with at least {end} bytes", found=f"{size} bytes")
