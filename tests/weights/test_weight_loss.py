"""What weights lose: sums, the rows that lose most, and the section of a report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.weights.weight_loss import NAMED, LostRow, Rounding, WeightTally
from elastic_runtime.errors import InputError
from elastic_runtime.format.records import encode

SUM = st.one_of(st.just(0.0), st.floats(1e-9, 9))
SUMS = st.lists(st.tuples(SUM, SUM), min_size=1, max_size=40)
WORST = LostRow("lm_head.weight", 17, 0.021)
TEXT = "int8 weights are off by 0.67%; most of all lm_head.weight row 17, by 2.10%"


def tally(sums: list[tuple[float, float]], first: int = 0, tensor: str = "w") -> WeightTally:
    errors, squares = np.array(sums).T
    return WeightTally.of(tensor, np.arange(first, first + len(sums)), errors, squares)


@given(SUMS)
def test_the_rows_that_lose_most(sums: list[tuple[float, float]]) -> None:
    found = tally(sums, first=100)
    losses = [(1.0 if error else 0.0) if square == 0 else float(np.sqrt(error / square)) for error, square in sums]
    expected = sorted(((-loss, 100 + row) for row, loss in enumerate(losses) if loss))[:NAMED]
    assert found.rows == tuple(LostRow("w", row, -loss) for loss, row in expected)
    total = sum(square for _, square in sums)
    assert found.error == pytest.approx((sum(error for error, _ in sums) / total) ** 0.5 if total else 0.0)


@given(SUMS, st.data())
def test_matrices_one_after_the_other(sums: list[tuple[float, float]], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(sums)))
    parts = [tally(part, first) for part, first in ((sums[:at], 0), (sums[at:], at)) if part]
    whole, found = tally(sums), sum(parts, WeightTally())
    assert found.rows == whole.rows
    assert (found.errors, found.squares) == pytest.approx((whole.errors, whole.squares))


def test_nothing_and_zeros_lose_nothing() -> None:
    for found in (WeightTally(), tally([(0.0, 0.0), (0.0, 4.0)])):
        assert (found.error, found.rows) == (0.0, ())


def rounding(**more: Any) -> Rounding:
    return Rounding(**({"quantisation": "int8", "dequantised": (), "error": 0.0067, "rows": (WORST,)} | more))


def test_a_report_has_five_digits_of_it() -> None:
    found = Rounding.of(WeightTally(2.0, 3.0, (LostRow("w", 1, 1 / 3),)), "int8", ["FP8"])
    assert found == Rounding("int8", ("FP8",), 0.8165, (LostRow("w", 1, 0.33333),))
    assert Rounding.of_report({"rounding": encode(found)}, "a/report.json") == found


def test_in_a_line() -> None:
    assert rounding().text() == TEXT
    assert rounding(rows=()).text() == "int8 weights are off by 0.67%"
    text = "int8 weights are off by 0.67% of the dequantised FP8 and NVFP4"
    assert rounding(dequantised=("FP8", "NVFP4"), rows=()).text() == text


def test_what_somebody_else_wrote_is_escaped() -> None:
    assert "\x1b" not in rounding(rows=(LostRow("\x1b[31m", 1, 1.0),)).text()


@pytest.mark.parametrize("report", [{}, {"rounding": None}])
def test_a_report_that_says_nothing_of_it(report: dict[str, Any]) -> None:
    assert Rounding.of_report(report, "a/report.json") is None


@pytest.mark.parametrize("found", [[], 3, {"error": 1.0}, encode(rounding()) | {"error": "none"}])
def test_a_report_that_has_something_else_there_is_named(found: object) -> None:
    with pytest.raises(InputError, match=r"a/report.json: rounding.*Export the bundle again"):
        Rounding.of_report({"rounding": found}, "a/report.json")
