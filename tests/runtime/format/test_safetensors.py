"""The safetensors reader against the reference library, and against malformed files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_runtime.errors import InputError
from elastic_runtime.format.safetensors import DTYPES, TensorFile, dtype_name, encode_header, read_header


def container(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin: Any, end: Any, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD = {
    "empty": (b"", "expected a safetensors file, found 0 bytes."),
    "short length": (b"\0\0\0", "expected a safetensors file, found 3 bytes."),
    "absurd length": (
        b"\xff" * 8 + b"{}",
        "header length: expected at most 100000000 bytes, found 18446744073709551615.",
    ),
    "header cut": (container({}, length=99), "header: expected 99 bytes, found 2: the file is truncated."),
    "header no JSON": (container(b"{nope}"), ", header: expected valid JSON, found Expecting property name"),
    "header a list": (container([]), ", header: expected a JSON object, found a list of 0."),
    "tensor twice": (
        container(b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":{}}', b"1234"),
        ", header: expected every key once in an object, found the key 'a' twice.",
    ),
    "metadata no texts": (container({"__metadata__": {"x": 1}}), "__metadata__: expected an object of texts"),
    "entry no object": (container({"a": 3}), "tensor 'a': expected dtype, shape and data_offsets, found 3."),
    "entry lacks a key": (
        container({"a": {"dtype": "F32", "shape": []}}),
        "tensor 'a': expected dtype, shape and data_offsets, found the keys dtype, shape.",
    ),
    "unknown dtype": (
        container({"a": entry(0, 4, dtype="F13")}, b"1234"),
        "tensor 'a', dtype: expected one of BF16, F16",
    ),
    "dtype a number": (container({"a": entry(0, 4, dtype=5)}, b"1234"), "tensor 'a', dtype: expected one of"),
    "negative shape": (
        container({"a": entry(0, 4, [-1])}, b"1234"),
        "tensor 'a', shape: expected a list of integers ≥ 0",
    ),
    "shape with a bool": (
        container({"a": entry(0, 4, [True])}, b"1234"),
        "'a', shape: expected a list of integers ≥ 0",
    ),
    "shape a number": (container({"a": entry(0, 4, 1)}, b"1234"), "tensor 'a', shape: expected a list of integers ≥ 0"),
    "offsets reversed": (
        container({"a": entry(4, 0)}, b"1234"),
        "expected [begin, end] with begin ≤ end, found [4, 0].",
    ),
    "one offset": (
        container({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}, b"1234"),
        "'a', data_offsets: expected [begin, end] with begin ≤ end, found [4].",
    ),
    "offset no integer": (container({"a": entry(0.0, 4)}, b"1234"), "data_offsets: expected a list of integers ≥ 0"),
    "size contradicts shape": (container({"a": entry(0, 4, [2])}, b"1234"), "expected 8 bytes for F32 [2], found 4."),
    "shape beyond memory": (
        container({"a": entry(0, 4, [2**62, 2**62])}, b"1234"),
        f"expected {2**126} bytes for F32",
    ),
    "overlap": (
        container({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),
        "tensor 'b': expected to lie right after 'a', found 4 bytes shared by both.",
    ),
    "same place": (
        container({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)),
        "tensor 'b': expected to lie right after 'a', found 4 bytes shared by both.",
    ),
    "hole": (
        container({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)),
        "tensor 'b': expected to lie right after 'a', found 4 unused bytes between them.",
    ),
    "hole in front": (
        container({"a": entry(4, 8)}, bytes(8)),
        "tensor 'a': expected to lie right after the header, found 4 unused bytes before it.",
    ),
    "data cut": (container({"a": entry(0, 8, [2])}, bytes(7)), "tensor 'a': expected data up to byte"),
    "data besides": (container({"a": entry(0, 4)}, bytes(5)), "bytes that belong to no tensor."),
    "no tensors but data": (container({}, bytes(5)), "bytes that belong to no tensor."),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_malformed_files_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_header(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


@pytest.mark.parametrize(("dtype", "quantised"), [("F4", True), ("F8_E8M0", True), ("F13", False), (5, False)])
def test_a_dtype_of_quantised_weights_is_no_damage(tmp_path: Path, dtype: object, quantised: bool) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(container({"a": entry(0, 4, dtype=dtype)}, b"1234"))  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        read_header(path)
    assert ("quantised" in caught.value.todo) == quantised


def test_metadata_that_is_null_is_none(tmp_path: Path) -> None:
    """As the reference implementation reads it, whose metadata is an option."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(container({"__metadata__": None, "a": entry(0, 4)}, b"1234"))
    assert list(read_header(path)) == ["a"]


def test_files_that_are_none(tmp_path: Path) -> None:
    for path, found in ((tmp_path, "a folder"), (tmp_path / "none", "no such file")):
        with pytest.raises(InputError, match=f"expected a safetensors file, found {found}"):
            read_header(path)


DTYPE_NAMES = [name for name in DTYPES if name != "bool"]
TENSORS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(DTYPE_NAMES), st.lists(st.integers(0, 4), max_size=3)),
    max_size=6,
)


@settings(deadline=None)
@given(TENSORS, st.randoms())
def test_reads_what_the_library_writes(tmp_path_factory: pytest.TempPathFactory, tensors: Any, random: Any) -> None:
    path = tmp_path_factory.mktemp("t") / "x.safetensors"
    arrays = {
        name: np.frombuffer(random.randbytes(int(np.prod(shape, dtype=int)) * 8), np.uint8)[
            : int(np.prod(shape, dtype=int)) * DTYPES[dtype][1].itemsize
        ]
        .view(DTYPES[dtype][1])
        .reshape(shape)
        for name, (dtype, shape) in tensors.items()
    }
    safetensors.numpy.save_file(arrays, path, {"format": "pt"})
    file = TensorFile(path)
    assert set(file.entries) == set(arrays)
    raw = path.read_bytes()
    for name, array in arrays.items():
        found, place = file.read(name), file.entries[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes() == raw[place.offset : place.offset + place.nbytes]
        assert place.dtype == dtype_name(array.dtype)


@settings(deadline=None)
@given(TENSORS)
def test_the_library_reads_what_we_write(tmp_path_factory: pytest.TempPathFactory, tensors: Any) -> None:
    path = tmp_path_factory.mktemp("t") / "x.safetensors"
    header, entries = encode_header(tensors, {"format": "pt"})
    total = sum(place.nbytes for place in entries.values())
    path.write_bytes(header + bytes(total))
    assert len(header) % 64 == 0
    assert read_header(path) == entries
    with safetensors.safe_open(path, "np") as library:
        assert library.metadata() == {"format": "pt"}
        assert {name: library.get_slice(name).get_shape() for name in library.keys()} == {  # noqa: SIM118
            name: shape for name, (_, shape) in tensors.items()
        }


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_whole_or_refused(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.mktemp("t") / "x.safetensors"
    header, entries = encode_header({"a": ("bf16", (2, 3)), "b": ("fp32", (4,)), "c": ("i64", ())})
    raw = bytearray(header + bytes(sum(place.nbytes for place in entries.values())))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))])
    try:
        file = TensorFile(path)
    except InputError as error:
        assert str(error).startswith(str(path))  # noqa: PT017  # either outcome is right
    else:
        assert sum(file.read(name).nbytes for name in file.entries) == sum(e.nbytes for e in file.entries.values())


def test_views_are_read_only_and_share_the_mapping(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"a": np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3)}, path)
    file = TensorFile(path)
    view = file.read("a")
    assert view.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert np.shares_memory(view, file.read("a"))
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1


def test_unknown_tensor_and_shrunk_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(100, np.float32)}, path)
    file = TensorFile(path)
    with pytest.raises(InputError, match="expected a tensor 'b', found none of that name"):
        file.read("b")
    with path.open("r+b") as out:
        out.truncate(200)
    with pytest.raises(InputError, match=r"found 200: it shrank since it was opened\. Leave the file alone"):
        file.read("a")


def test_opening_reads_the_header_only(tmp_path: Path) -> None:
    """A file of 8 TB, all hole: anything that touched the data would not end."""
    path = tmp_path / "x.safetensors"
    header, entries = encode_header({"a": ("bf16", (1 << 20, 1 << 20)), "b": ("bf16", (1 << 20, 3 << 20))})
    with path.open("wb") as out:
        out.write(header)
        out.truncate(sum(place.nbytes for place in entries.values()) + len(header))
    file = TensorFile(path)
    assert file.entries["b"].offset == len(header) + (2 << 40)
    assert file.read("b")[-1, -3:].tolist() == [0, 0, 0]
