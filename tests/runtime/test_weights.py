from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elastic_runtime.errors import InputError
from elastic_runtime.weights import WeightInput, WeightRecipe, iter_weights, load_weight

NAME = "backbone.layers.0.mixer.in_proj.weight"
BODY: dict[str, Any] = {
    "file": "../weights/model-00001-of-00005.safetensors",
    "offset": 123456,
    "dtype": "bf16",
    "parent_shape": [22656, 5120],
    "shape": [1920, 3584],
    "runs": [[[0, 960], [1280, 960]], [[0, 3584]]],
}
DTYPES = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16, "fp32": np.float32}


def recipe_of(**change: object) -> dict[str, Any]:
    return {"schema": "elastic-weights/1", "inputs": {NAME: {**BODY, **change}}}


def test_the_example_of_the_design_reads_and_comes_back() -> None:
    data = {"inputs": {NAME: BODY}}
    recipe = WeightRecipe.from_json(data, "6b/weights.json")
    item = recipe.inputs[0]
    assert (item.nbytes, item.parent_nbytes, recipe.nbytes) == (13_762_560, 231_997_440, 13_762_560)
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
        ({"schema": "elastic-weights/2", "inputs": {}}, "weights.json: schema: expected 'elastic-weights/1'"),
        ({"inputs": {"a": {k: v for k, v in BODY.items() if k != "dtype"}}}, "expected the field 'dtype'"),
    ],
)
def test_attacks_on_the_file(data: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WeightRecipe.from_json(data)


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


@st.composite
def inputs(draw: st.DrawFn) -> tuple[WeightInput, np.ndarray]:
    """A tensor of random bits at a random offset, and runs of it."""
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    kept = [sorted(draw(st.sets(st.integers(0, n - 1), min_size=1))) for n in shape]
    runs = tuple(tuple((i, 1) for i in axis) for axis in kept)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    source = np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(DTYPES[dtype]).itemsize), DTYPES[dtype])
    offset = draw(st.integers(0, 9))  # unaligned ones too
    return WeightInput("w", "w.bin", offset, dtype, shape, tuple(map(len, kept)), runs), source.reshape(shape)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(inputs())
def test_loaded_bits_are_numpys_slice(tmp_path: Path, case: tuple[WeightInput, np.ndarray]) -> None:
    item, source = case
    (tmp_path / "w.bin").write_bytes(b"x" * item.offset + source.tobytes() + b"tail")
    expected = source[np.ix_(*([s for s, _ in axis] for axis in item.runs))]
    loaded = load_weight(item, tmp_path)
    assert loaded.dtype == expected.dtype
    assert loaded.shape == expected.shape
    assert loaded.tobytes() == expected.tobytes()
    (tmp_path / "w.bin").unlink()


@pytest.fixture
def small(tmp_path: Path) -> WeightRecipe:
    (tmp_path / "weights").mkdir()
    (tmp_path / "6b").mkdir()
    np.arange(64, dtype=np.float32).tofile(tmp_path / "weights" / "w.bin")
    top_left = WeightInput("block", "../weights/w.bin", 0, "fp32", (8, 8), (2, 3), (((0, 2),), ((0, 3),)))
    rows = WeightInput("rows", "../weights/w.bin", 0, "fp32", (8, 8), (2, 8), (((3, 2),), ((0, 8),)))
    return WeightRecipe((top_left, rows), "6b/weights.json")


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
    beyond = replace(small.inputs[1], name="late", offset=8)
    with pytest.raises(InputError, match=r"6b/weights.json: late: expected .*w.bin with at least 264 bytes, found 256"):
        next(iter_weights(WeightRecipe((small.inputs[0], beyond), "6b/weights.json"), tmp_path / "6b"))
