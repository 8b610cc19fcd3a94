"""Rows in eight bits: what is lost, what is stored, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from elastic_export.weights.rows_int8 import round_rows
from elastic_runtime.errors import InputError

Floats = np.ndarray[Any, np.dtype[np.float32]]
VALUES = st.floats(-(2.0**20), 2.0**20, width=32)


@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=VALUES))
def test_every_value_is_the_nearest_multiple_of_its_rows_scale(rows: Floats) -> None:
    values, scales = round_rows(rows, "w")
    assert values.dtype == np.int8
    assert scales.dtype == np.float32
    exact = rows.astype(np.float64)
    for row, found, scale in zip(exact, values.astype(np.float64), scales.astype(np.float64), strict=True):
        most = np.abs(row).max()
        if most > 1e-30:
            assert scale == np.float32(most) / np.float32(127)
            assert np.abs(found).max() == 127
        # Half a step, and what float32 makes of the quotient.
        assert (np.abs(row - found * scale) <= scale * (0.5 + 1e-5) + 1e-36).all()


@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=VALUES))
def test_bf16_and_fp16_are_rounded_as_the_float32_that_they_are(rows: Floats) -> None:
    for narrow in (rows.astype(ml_dtypes.bfloat16), np.clip(rows, -6e4, 6e4).astype(np.float16)):
        for found, expected in zip(round_rows(narrow, "w"), round_rows(narrow.astype(np.float32), "w"), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_ties_go_to_the_even_value() -> None:
    values, scales = round_rows(np.array([[127.0, 0.5, 1.5, -0.5, -2.5, 126.5]], np.float32), "w")
    assert scales.tolist() == [1.0]
    assert values.tolist() == [[127, 0, 2, 0, -2, 126]]


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-37, 2.0**-133])
def test_a_row_of_zeros_or_next_to_them_is_zeros_with_the_scale_one(value: float) -> None:
    values, scales = round_rows(np.array([[value, 0.0], [1.0, -1.0]], np.float32), "w")
    assert scales[0] == 1.0
    assert values.tolist() == [[0, 0], [127, -127]]


@pytest.mark.parametrize(("value", "text"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf"), (3.39e38, "3.3895")])
def test_what_is_not_finite_is_refused_by_its_tensor(value: float, text: str) -> None:
    rows = np.ones((3, 4), np.float32)
    rows[1, 2] = value
    with pytest.raises(InputError, match=rf"tensor 'lm_head.weight': expected finite values.*found {text}"):
        round_rows(rows.astype(ml_dtypes.bfloat16), "lm_head.weight")


def test_the_parent_is_left_alone(tmp_path: Path) -> None:
    rows = np.array([[1.0, 2.0]], np.float32)
    round_rows(rows, "w")
    assert rows.tolist() == [[1.0, 2.0]]
