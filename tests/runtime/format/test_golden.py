from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from elastic_runtime.errors import InputError
from elastic_runtime.format.golden import Golden, read_golden, write_golden
from elastic_runtime.format.sketch import sketch


@pytest.fixture
def golden() -> Golden:
    """Two rows, three calls: a ragged prompt cut in two, then a decode step."""
    rng = np.random.default_rng(0)
    return Golden(
        seed=7,
        ids=np.array([[11, 12, 13, 14, 15], [21, 22, 0, 0, 0]]),
        tokens=np.array([3, 2, 1]),
        position=np.array([[0, 0], [3, 1], [4, 1]]),
        length=np.array([[3, 1], [1, 0], [1, 1]]),
        logits=rng.standard_normal((3, 2, 6)).astype(np.float32),
        states={"ssm_state.0": sketch(np.ones(5)), "conv_state.0": sketch(np.arange(4))},
    )


def test_there_and_back(tmp_path: Path, golden: Golden) -> None:
    write_golden(tmp_path / "a", golden)
    read = read_golden(tmp_path / "a")
    for name in ("ids", "tokens", "position", "length", "logits"):
        np.testing.assert_array_equal(getattr(read, name), getattr(golden, name))
    assert read.seed == 7
    assert set(read.states) == {"ssm_state.0", "conv_state.0"}
    np.testing.assert_array_equal(read.states["ssm_state.0"], golden.states["ssm_state.0"])
    write_golden(tmp_path / "b", read)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_tools_read_it(tmp_path: Path, golden: Golden) -> None:
    write_golden(tmp_path / "a", golden)
    tensors = load_file(tmp_path / "a")
    assert tensors["version"].tolist() == [1]
    assert tensors["state.ssm_state.0"].shape == (65,)
    assert tensors["logits"].dtype == np.float32


def test_calls(golden: Golden) -> None:
    assert golden.calls == 3
    assert golden.call_ids(0).tolist() == [[11, 12, 13], [21, 0, 0]]
    assert golden.call_ids(1).tolist() == [[14, 0], [0, 0]]
    assert golden.call_ids(2).tolist() == [[15], [22]]
    assert golden.ends.tolist() == [5, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": np.array([[4, 1], [1, 0], [1, 1]])}, r"call 0: expected 1 <= T and 0 <= length <= T"),
        ({"length": np.array([[3, -1], [1, 0], [1, 1]])}, r"call 0: expected 1 <= T"),
        ({"tokens": np.array([3, 0, 1])}, r"call 1: expected 1 <= T"),
        (
            {"tokens": np.array([3, 2**40, 1])},
            "call 1: expected T of at most 5, the tokens of a row, found 1099511627776",
        ),
        ({"position": np.array([[0, 0], [2, 1], [4, 1]])}, r"call 1: expected position \[3, 1\], found \[2, 1\]"),
        ({"ids": np.array([[11, 12, 13, 14], [21, 22, 0, 0]])}, "call 2: expected at most 4 tokens a row"),
        ({"tokens": np.array([3, 2])}, "for 2 calls of 2 rows"),
        ({"logits": np.zeros((3, 1, 6), np.float32)}, "for 3 calls of 2 rows"),
        ({"states": {"a": np.zeros(64)}}, r"state.a: expected 65 finite numbers"),
        ({"states": {"a": np.full(65, np.nan)}}, r"state.a: expected 65 finite numbers"),
    ],
)
def test_runs_that_make_no_sense_are_not_written(
    tmp_path: Path, golden: Golden, change: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_golden(tmp_path / "a", replace(golden, **change))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("ids"), "ids: expected i64 of 2 axes, found no such tensor"),
        (lambda t: t.update(ids=t["ids"].astype(np.int32)), r"ids: expected i64 of 2 axes, found i32"),
        (lambda t: t.update(logits=t["logits"][0]), r"logits: expected fp32 of 3 axes"),
        (lambda t: t.update(version=np.array([2])), r"version: expected \[1\], found \[2\]"),
        (lambda t: t.update(seed=np.array([1, 2])), "expected one seed"),
        (lambda t: t.update(more=np.array([1])), "found more"),
        (lambda t: t.update(length=t["length"] + 9), r"call 0: expected 1 <= T and .*\. Export the bundle again"),
    ],
)
def test_attacks(tmp_path: Path, golden: Golden, edit: Callable[[dict[str, np.ndarray]], object], message: str) -> None:
    write_golden(tmp_path / "a", golden)
    tensors = load_file(tmp_path / "a")
    edit(tensors)
    save_file(tensors, tmp_path / "a")
    with pytest.raises(InputError, match=message):
        read_golden(tmp_path / "a")
