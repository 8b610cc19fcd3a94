"""The safetensors container, read and written by absolute byte offsets.

The reference library gives tensors but not where they lie, and `weights.json` is made of places. The format: a
little-endian 64-bit header length, a JSON header naming dtype, shape and data offsets of every tensor, then the
tensors' bytes, back to back without holes (github.com/huggingface/safetensors, README "Format").
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from elastic_runtime.errors import REFUSED, InputError
from elastic_runtime.format.jsonfile import json_type, parse_json
from elastic_runtime.format.mapped import MappedFile

#: Bytes a header may have: the bound of the reference implementation.
MAX_HEADER = 100_000_000

#: Our dtype names: (name in the file, numpy dtype).
DTYPES: dict[str, tuple[str, np.dtype[Any]]] = {
    "bf16": ("BF16", np.dtype(ml_dtypes.bfloat16)),
    "fp16": ("F16", np.dtype("<f2")),
    "fp32": ("F32", np.dtype("<f4")),
    "fp64": ("F64", np.dtype("<f8")),
    "fp8_e4m3": ("F8_E4M3", np.dtype(ml_dtypes.float8_e4m3fn)),
    "fp8_e5m2": ("F8_E5M2", np.dtype(ml_dtypes.float8_e5m2)),
    "bool": ("BOOL", np.dtype("?")),
    "i8": ("I8", np.dtype("i1")),
    "i16": ("I16", np.dtype("<i2")),
    "i32": ("I32", np.dtype("<i4")),
    "i64": ("I64", np.dtype("<i8")),
    "u8": ("U8", np.dtype("u1")),
    "u16": ("U16", np.dtype("<u2")),
    "u32": ("U32", np.dtype("<u4")),
    "u64": ("U64", np.dtype("<u8")),
}
#: What else the container may hold, and nothing here reads: quantised weights, mostly.
_NOT_READ = ("F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64")
_OUR_NAME = {file_name: ours for ours, (file_name, _) in DTYPES.items()}


def itemsize(dtype: str) -> int:
    """Bytes of one element of a dtype of ours."""
    return DTYPES[dtype][1].itemsize


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Our name of a numpy dtype; KeyError where the container has none."""
    return {numpy_dtype: ours for ours, (_, numpy_dtype) in DTYPES.items()}[dtype]


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: `offset` is the absolute byte of its first element, `nbytes` its length."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Every tensor of a safetensors file, by ascending offset; the data is not read.

    Raises:
        InputError: naming the file, and the tensor where there is one: unreadable or truncated file, absurd header
            length, malformed or duplicate entries, unknown dtype, a size that contradicts dtype and shape,
            overlapping, out-of-range or non-contiguous offsets.
    """
    try:
        size, header = _header_bytes(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    start = 8 + len(header)
    raw = parse_json(header, f"{path}, header")
    metadata = raw.pop("__metadata__", None)
    if metadata is None:  # optional in the reference implementation too, so null is as good as absent
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError(f"{path}, __metadata__", expected="an object of texts", found=json_type(metadata))
    entries = sorted(
        (_entry(path, name, value, start) for name, value in raw.items()), key=lambda e: (e.offset, e.nbytes)
    )
    _check_contiguous(path, entries, start, size)
    return {entry.name: entry for entry in entries}


def read_metadata(path: Path) -> dict[str, str]:
    """What a file says of itself, empty where it says nothing.

    Raises:
        InputError: see `read_header`.
    """
    try:
        _, header = _header_bytes(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    found = parse_json(header, f"{path}, header").get("__metadata__")
    return {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}


class TensorFile:
    """A safetensors file: its header at once, its bytes mapped when first read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: Mapping[str, TensorEntry] = read_header(path)
        self._map: MappedFile | None = None

    def read(self, name: str) -> np.ndarray[Any, Any]:
        """A read-only view of one tensor in its own dtype (`ml_dtypes.bfloat16` for BF16); nothing is copied.

        Raises:
            InputError: the file has no tensor of that name, or can no longer be mapped.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise InputError(
                f"{self.path}",
                expected=f"a tensor {name!r}",
                found="none of that name",
                todo="look at the names in `entries`",
            )
        return self._mapped().array(entry.offset, DTYPES[entry.dtype][1], entry.shape)

    def release(self, name: str) -> None:
        """Give the memory of a tensor's pages back; arrays made from it stay valid and read the file again."""
        if self._map is not None:
            self._map.release(self.entries[name].offset, self.entries[name].nbytes)

    def _mapped(self) -> MappedFile:
        if self._map is None:
            end = max((entry.offset + entry.nbytes for entry in self.entries.values()), default=0)
            try:
                size, self._map = self.path.stat().st_size, MappedFile(self.path)
            except (OSError, ValueError) as error:
                raise InputError(
                    str(self.path),
                    expected="a file that can be mapped",
                    found=str(error),
                    todo="put it on a file system that maps files, and make it readable",
                ) from None
            if size < end:
                self._map = None
                found = f"{size}: it shrank since it was opened"
                todo = "leave the file alone while it is read"
                raise InputError(str(self.path), expected=f"{end} bytes", found=found, todo=todo)
        return self._map


def encode_header(
    tensors: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, TensorEntry]]:
    """Length field and header of a file that will hold `tensors` (our dtype name, shape), in this order.

    Returns the bytes to write first and where each tensor's bytes then go. Data starts at a multiple of 64 bytes, so
    that a mapped file gives aligned tensors; equal arguments give equal bytes.
    """
    raw: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position, sizes = 0, dict[str, int]()
    for name, (dtype, shape) in tensors.items():
        sizes[name] = math.prod(shape) * itemsize(dtype)
        end = position + sizes[name]
        raw[name] = {"dtype": DTYPES[dtype][0], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(raw, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-(8 + len(text)) % 64)
    start = 8 + len(text)
    entries = {
        name: TensorEntry(name, dtype, tuple(shape), start + raw[name]["data_offsets"][0], sizes[name])
        for name, (dtype, shape) in tensors.items()
    }
    return len(text).to_bytes(8, "little") + text, entries


def _unreadable(path: Path, error: OSError) -> InputError:
    found, todo = error.strerror or "an error", REFUSED.get(error.errno or 0, "")
    return InputError(str(path), expected="a readable safetensors file", found=found, todo=todo)


def _header_bytes(path: Path) -> tuple[int, bytes]:
    """(size of the file, the header's JSON text)."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(str(path), expected="a safetensors file", found=found)
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise InputError(str(path), expected="a safetensors file", found=f"{len(prefix)} bytes")
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER:
            raise InputError(f"{path}, header length", expected=f"at most {MAX_HEADER} bytes", found=str(length))
        header = file.read(length)
    if len(header) < length:
        found = f"{len(header)}: the file is truncated"
        raise InputError(f"{path}, header", expected=f"{length} bytes", found=found)
    return size, header


def _entry(path: Path, name: str, value: object, start: int) -> TensorEntry:
    subject = f"{path}, tensor {name!r}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        found = f"the keys {', '.join(sorted(value))}" if isinstance(value, dict) else json_type(value)
        raise InputError(subject, expected="dtype, shape and data_offsets", found=found)
    dtype = _OUR_NAME.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise InputError(
            f"{subject}, dtype",
            expected=f"one of {', '.join(_OUR_NAME)}",
            found=json_type(value["dtype"]),
            todo="take the weights in one of these; quantised ones are not read" if value["dtype"] in _NOT_READ else "",
        )
    shape = _counts(f"{subject}, shape", value["shape"])
    begin, end = _offsets(f"{subject}, data_offsets", value["data_offsets"])
    nbytes = math.prod(shape) * itemsize(dtype)
    if end - begin != nbytes:
        expected = f"{nbytes} bytes for {value['dtype']} {list(shape)}"
        raise InputError(f"{subject}, data_offsets", expected=expected, found=f"{end - begin}")
    return TensorEntry(name, dtype, shape, start + begin, nbytes)


def _counts(subject: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        raise InputError(subject, expected="a list of integers ≥ 0", found=json_type(value))
    return tuple(value)


def _offsets(subject: str, value: object) -> tuple[int, int]:
    counts = _counts(subject, value)
    if len(counts) != 2 or counts[0] > counts[1]:
        raise InputError(subject, expected="[begin, end] with begin ≤ end", found=str(list(counts)))
    return counts[0], counts[1]


def _check_contiguous(path: Path, entries: list[TensorEntry], start: int, size: int) -> None:
    """The tensors fill the file from the header to its end, each byte once."""
    if entries and entries[0].offset != start:
        found = f"{entries[0].offset - start} unused bytes before it"
        raise InputError(f"{path}, tensor {entries[0].name!r}", expected="to lie right after the header", found=found)
    for before, after in pairwise(entries):
        gap = after.offset - (before.offset + before.nbytes)
        if gap:
            found = f"{gap} unused bytes between them" if gap > 0 else f"{-gap} bytes shared by both"
            expected = f"to lie right after {before.name!r}"
            raise InputError(f"{path}, tensor {after.name!r}", expected=expected, found=found)
    end = entries[-1].offset + entries[-1].nbytes if entries else start
    if end > size:
        last = entries[-1].name
        raise InputError(
            f"{path}, tensor {last!r}", expected=f"data up to byte {end}", found=f"a file of {size} bytes, truncated"
        )
    if end < size:
        raise InputError(str(path), expected=f"{end} bytes", found=f"{size}: bytes that belong to no tensor")
