from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.slicing import full_runs
from elastic_runtime.format.weights import StoredSlice, WeightInput, WeightRecipe, iter_weights, load_weight

NAME = "backbone.layers.0.mixer.in_proj.weight"
BODY: dict[str, Any] = {
    "file": "../weights/model-00001-of-00005.safetensors",
    "offset": 123456,
    "dtype": "bf16",
    "parent_shape": [22656, 5120],
    "shape": [1920, 3584],
    "runs": [[[0, 960], [1280, 960]], [[0, 3584]]],
}
DTYPES = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16, "fp32": np.float32, "int8": np.int8}


def recipe_of(**change: object) -> dict[str, Any]:
    return {"schema": "elastic-weights/1", "inputs": {NAME: {**BODY, **change}}}


def test_the_example_of_the_design_reads_and_comes_back() -> None:
    data = {"inputs": {NAME: BODY}}
    recipe = WeightRecipe.from_json(data, "6b/weights.json")
    item = recipe.inputs[0]
    [part] = item.parts
    assert (item.nbytes, part.parent_nbytes, recipe.nbytes) == (13_762_560, 231_997_440, 13_762_560)
    assert (item.dtype, item.shape) == (part.dtype, part.shape) == ("bf16", (1920, 3584))
    text = recipe.to_json()
    assert json.loads(text) == {"schema": "elastic-weights/1", **data}
    assert WeightRecipe.from_json(json.loads(text), "6b/weights.json").to_json() == text


ATTACKS: list[tuple[dict[str, Any], str]] = [
    ({"file": "/etc/passwd"}, "relative path inside the bundle"),
    ({"file": "../../weights/a"}, "relative path inside the bundle"),
    ({"file": "../weights/../../a"}, "relative path inside the bundle"),
    ({"file": "..\\weights\\a"}, "relative path inside the bundle"),
    ({"file": "C:/weights"}, "relative path inside the bundle"),
    ({"file": ".."}, "relative path inside the bundle"),
    ({"file": ""}, "relative path inside the bundle"),
    ({"file": "a\0b"}, "relative path inside the bundle"),
    ({"file": "a//b"}, "relative path inside the bundle"),
    ({"file": 7}, "expected text, found 7"),
    ({"offset": -1}, "expected an integer from 0"),
    ({"offset": 2**53}, "expected an integer from 0"),
    ({"offset": 1.0}, "expected an integer from 0"),
    ({"offset": True}, "expected an integer from 0"),
    ({"offset": 2**53 - 1}, "a tensor below 2\\^53 bytes"),
    ({"dtype": "fp8"}, "expected 'bf16' or 'fp16' or 'fp32', found fp8"),
    ({"dtype": None}, "expected 'bf16' or 'fp16' or 'fp32', found None"),
    ({"parent_shape": []}, "equally many, found 0, 2 and 2"),
    ({"parent_shape": [10**15, 5120]}, "a tensor below 2\\^53 bytes"),
    ({"parent_shape": [22656]}, "equally many"),
    ({"shape": [1920]}, "equally many"),
    ({"shape": [1921, 3584]}, "add up to shape's 1921, at least 1, found 1920"),
    ({"runs": [[[0, 960], [1280, 960]]]}, "equally many"),
    ({"runs": [[[1280, 960], [0, 960]], [[0, 3584]]]}, r"runs\[0\]: expected ascending"),
    ({"runs": [[[0, 960], [959, 960]], [[0, 3584]]]}, r"found \[959, 960\] after 960"),
    ({"runs": [[[0, 960], [22000, 960]], [[0, 3584]]]}, r"within 0..22656"),
    ({"runs": [[[0, 960], [21697, 960]], [[0, 3584]]]}, r"found \[21697, 960\]"),
    ({"runs": [[[0, 960], [1280, 0]], [[0, 3584]]]}, "count >= 1"),
    ({"runs": [[[0, 960], [1280, -1]], [[0, 3584]]]}, "expected an integer from 0"),
    ({"runs": [[[0, 960, 1]], [[0, 3584]]]}, "an array of 2 items"),
    ({"runs": [[], [[0, 3584]]], "shape": [0, 3584]}, "at least 1"),
    ({"extra": 1}, "'extra' as well"),
]


@pytest.mark.parametrize(("change", "message"), ATTACKS, ids=[str(i) for i in range(len(ATTACKS))])
def test_attacks_are_named_with_file_and_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        WeightRecipe.from_json(recipe_of(**change), "6b/weights.json")
    assert error.value.subject.startswith(f"6b/weights.json: {NAME}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "no 'inputs'"),
        ({"inputs": []}, "expected an object"),
        ({"inputs": {"a": 3}}, "weights.json: a: expected an object, found 3"),
        ({"inputs": {}, "more": 1}, "'more' as well"),
        ({"schema": "elastic-weights/3", "inputs": {}}, "schema: expected 'elastic-weights/1' or 'elastic-weights/2'"),
        ({"inputs": {"a": {k: v for k, v in BODY.items() if k != "dtype"}}}, "expected the field 'dtype'"),
    ],
)
def test_attacks_on_the_file(data: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WeightRecipe.from_json(data)


INT8 = {
    "w.int8": BODY | {"dtype": "int8"},
    "w.scale": BODY | {"dtype": "fp32", "parent_shape": [22656], "shape": [1920], "runs": BODY["runs"][:1]},
}


def test_int8_makes_it_version_2() -> None:
    recipe = WeightRecipe.from_json({"schema": "elastic-weights/2", "inputs": INT8})
    assert [item.dtype for item in recipe.inputs] == ["int8", "fp32"]
    assert [item.nbytes for item in recipe.inputs] == [1920 * 3584, 4 * 1920]
    text = recipe.to_json()
    assert json.loads(text) == {"schema": "elastic-weights/2", "inputs": INT8}
    assert WeightRecipe.from_json(json.loads(text)) == recipe
    plain = WeightRecipe((recipe.inputs[1],))
    assert json.loads(plain.to_json())["schema"] == "elastic-weights/1"


@pytest.mark.parametrize("schema", [{}, {"schema": "elastic-weights/1"}])
def test_version_1_has_no_int8(schema: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"w\.int8\.dtype: expected 'bf16' or 'fp16' or 'fp32', found int8"):
        WeightRecipe.from_json({**schema, "inputs": INT8})


def test_attacks_on_the_text(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text('{"inputs": {"a": 1, "a": 2}}')
    with pytest.raises(InputError, match=r"weights\.json"):
        WeightRecipe.read(path)
    path.write_text('{"inputs": ' + "[" * 100_000)
    with pytest.raises(InputError, match=r"weights\.json"):
        WeightRecipe.read(path)


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(BODY)), Json)
def test_any_value_in_any_field_is_accepted_or_an_input_error(field: str, value: object) -> None:
    try:
        WeightRecipe.from_json(recipe_of(**{field: value}))
    except InputError as error:
        named = NAME in error.subject
        assert named  # either outcome is right


@dataclass(frozen=True)
class Case:
    """An input, the files that its parts lie in, and the array that it is."""

    item: WeightInput
    files: dict[str, bytes]
    expected: np.ndarray

    def write(self, folder: Path) -> None:
        for name, data in self.files.items():
            (folder / name).write_bytes(data)


@st.composite
def cases(draw: st.DrawFn, most_parts: int) -> Case:
    """Runs of tensors of random bits, each at a random offset of a file, laid one behind the other along any axis."""
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    kept = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))  # of the axes that all parts share
    axis = draw(st.integers(0, len(kept) - 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    parts, files, arrays = list[StoredSlice](), dict[str, bytes](), list[np.ndarray]()
    for number in range(draw(st.integers(1, most_parts))):
        kept[axis] = draw(st.integers(1, 4))
        shape = tuple(size + draw(st.integers(0, 4)) for size in kept)
        taken = [sorted(rng.permutation(n)[:size].tolist()) for n, size in zip(shape, kept, strict=True)]
        runs = tuple(tuple((i, 1) for i in indices) for indices in taken)
        bits = rng.bytes(int(np.prod(shape)) * np.dtype(DTYPES[dtype]).itemsize)
        offset = draw(st.integers(0, 9))  # unaligned ones too
        parts.append(StoredSlice(f"{number}.bin", offset, dtype, shape, tuple(kept), runs))  # type: ignore[arg-type]
        files[f"{number}.bin"] = b"x" * offset + bits + b"tail"
        arrays.append(np.frombuffer(bits, DTYPES[dtype]).reshape(shape)[np.ix_(*taken)])
    return Case(WeightInput("w", tuple(parts), axis), files, np.concatenate(arrays, axis))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cases(1) | cases(3))
def test_loaded_bits_are_numpys_slices_behind_each_other(tmp_path: Path, case: Case) -> None:
    case.write(tmp_path)
    item, expected = case.item, case.expected
    loaded = load_weight(item, tmp_path)
    assert loaded.dtype == expected.dtype
    assert loaded.shape == expected.shape == item.shape
    assert loaded.nbytes == item.nbytes
    assert loaded.tobytes() == expected.tobytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cases(1))
def test_what_is_read_back_is_what_was_written(tmp_path: Path, case: Case) -> None:
    recipe = WeightRecipe((replace(case.item, axis=0),), str(tmp_path / "weights.json"))
    (tmp_path / "weights.json").write_text(recipe.to_json())
    assert WeightRecipe.read(tmp_path / "weights.json") == recipe


def part(dtype: Any = "fp32", shape: tuple[int, ...] = (2, 3)) -> StoredSlice:
    return StoredSlice("w.bin", 0, dtype, shape, shape, full_runs(shape))


@pytest.mark.parametrize(
    ("parts", "axis", "text"),
    [
        ((), 0, "weight qkv: expected parts of one dtype, found none."),
        ((part(), part("bf16"), part()), 0, "weight qkv: expected parts of one dtype, found fp32 and bf16."),
        (
            (part(), part(shape=(2, 4))),
            0,
            "weight qkv: expected parts that agree on all axes but 0, found (2, 3) and (2, 4).",
        ),
        (
            (part(), part(shape=(2,))),
            1,
            "weight qkv: expected parts that agree on all axes but 1, found (2, 3) and (2,).",
        ),
        ((part(),), 2, "weight qkv: expected parts that agree on all axes but 2, found (2, 3)."),
    ],
)
def test_parts_that_make_no_tensor_are_refused_by_name(parts: tuple[StoredSlice, ...], axis: int, text: str) -> None:
    with pytest.raises(InputError) as caught:
        WeightInput("qkv", parts, axis)
    assert str(caught.value) == text


def test_version_1_is_not_written_for_an_input_of_several_parts() -> None:
    recipe = WeightRecipe((WeightInput("q", (part(),)), WeightInput("kv", (part(), part()))), "6b/weights.json")
    with pytest.raises(BuildError) as caught:
        recipe.to_json()
    assert str(caught.value) == (
        "6b/weights.json: kv: expected one stored tensor, all that elastic-weights/1 can say, found 2 laid one behind "
        "the other. Embed the weights."
    )


@pytest.fixture
def small(tmp_path: Path) -> WeightRecipe:
    (tmp_path / "weights").mkdir()
    (tmp_path / "6b").mkdir()
    np.arange(64, dtype=np.float32).tofile(tmp_path / "weights" / "w.bin")
    top_left = StoredSlice("../weights/w.bin", 0, "fp32", (8, 8), (2, 3), (((0, 2),), ((0, 3),)))
    rows = StoredSlice("../weights/w.bin", 0, "fp32", (8, 8), (2, 8), (((3, 2),), ((0, 8),)))
    return WeightRecipe((WeightInput("block", (top_left,)), WeightInput("rows", (rows,))), "6b/weights.json")


def test_whole_rows_are_a_view_and_a_block_is_a_copy(tmp_path: Path, small: WeightRecipe) -> None:
    loaded = dict(iter_weights(small, tmp_path / "6b"))
    assert loaded["block"].tolist() == [[0, 1, 2], [8, 9, 10]]
    assert loaded["rows"].ravel().tolist() == list(range(24, 40))
    assert loaded["block"].flags.owndata or loaded["block"].base is not None
    assert not loaded["rows"].flags.writeable


def test_external_weights_are_found_by_name_in_the_folder_given(tmp_path: Path, small: WeightRecipe) -> None:
    (tmp_path / "weights").rename(tmp_path / "elsewhere")
    loaded = dict(iter_weights(small, tmp_path / "6b", external=tmp_path / "elsewhere"))
    assert loaded["rows"][0, 0] == 24
    with pytest.raises(InputError, match=r"6b/weights\.json: block: expected the file .*, found No such file"):
        next(iter_weights(small, tmp_path / "6b"))


def test_a_truncated_file_is_named_before_anything_is_yielded(tmp_path: Path, small: WeightRecipe) -> None:
    [rows] = small.inputs[1].parts
    beyond = WeightInput("late", (rows, replace(rows, offset=8)))
    with pytest.raises(InputError, match=r"6b/weights.json: late: expected .*w.bin with at least 264 bytes, found 256"):
        next(iter_weights(WeightRecipe((small.inputs[0], beyond), "6b/weights.json"), tmp_path / "6b"))


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EMFILE, r"found Too many open files\. Raise the limit of open files \(ulimit -n\)\.$"),
        (errno.EACCES, r"found Permission denied\. Change who may use it, or name another place\.$"),
        (errno.ENOTSUP, r"found Operation not supported\. Copy that file again\.$"),
    ],
)
def test_a_file_that_cannot_be_opened_is_named(
    tmp_path: Path, small: WeightRecipe, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    """Whoever loads weights for a model would say that of the model's file."""

    def fail(path: Path, flags: int) -> int:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(InputError, match=r"weights/w\.bin: expected a file that can be mapped, " + told):
        next(iter_weights(small, tmp_path / "6b"))


def test_a_file_cut_short_while_it_is_read_is_named_with_the_byte(tmp_path: Path, small: WeightRecipe) -> None:
    [block] = small.inputs[0].parts
    later = replace(block, runs=(((5, 2),), ((0, 3),)))
    arrays = iter_weights(WeightRecipe((small.inputs[0], WeightInput("later", (later,)))), tmp_path / "6b")
    assert next(arrays)[0] == "block"
    os.truncate(tmp_path / "weights" / "w.bin", 180)
    with pytest.raises(InputError, match=r"w\.bin: expected bytes from 180 on, found its end\. Copy that file again\."):
        next(arrays)
