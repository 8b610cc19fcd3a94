"""What is counted while rows are rounded: against float64 over exactly the rows and columns that a budget keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from elastic_export.runs import Runs, TensorRuns, positions, runs_of
from elastic_export.weights.row_losses import ColumnClasses, Losses
from elastic_export.weights.rows_int8 import round_rows
from elastic_export.weights.weight_loss import WeightTally

Floats = np.ndarray[Any, np.dtype[np.float32]]
N, K = 9, 21
ORDINARY = st.floats(-8, 8, width=32).map(lambda value: value if abs(value) > 1e-30 else 0.0)
VALUES = st.one_of(ORDINARY, st.sampled_from([0.0, 1e-38, -2e-40, 7e-20, 99.0]))
ROWS = arrays(np.float32, (N, K), elements=VALUES)


def kept(count: int) -> st.SearchStrategy[Runs]:
    return arrays(np.bool_, count).filter(lambda keep: bool(keep.any())).map(runs_of)


BUDGETS = st.dictionaries(st.sampled_from("abcd"), st.tuples(kept(N), kept(K)), min_size=1)


def counted(rows: Floats, budgets: dict[str, TensorRuns], band: int = 4, *, back: bool = False) -> dict[str, Any]:
    losses = Losses({budget: {"w": runs} for budget, runs in budgets.items()})
    with losses.rows("w", rows.shape) as lost:
        assert lost is not None
        starts = range(0, len(rows), band)
        for at in reversed(starts) if back else starts:
            round_rows(rows[at : at + band], "w", lost, at)
    return losses.tallies


@given(ROWS, BUDGETS)
def test_errors_of_what_each_budget_keeps(rows: Floats, budgets: dict[str, TensorRuns]) -> None:
    """Nested or not, whatever the runs; rows of zeros, and of values whose squares float32 cannot hold."""
    values, scales = round_rows(rows, "w")
    plain = rows.astype(np.float64)
    apart = plain - values.astype(np.float64) * scales[:, None]
    for budget, found in counted(rows, budgets).items():
        at = np.ix_(*map(positions, budgets[budget]))
        squares, errors = np.square(plain[at]).sum(axis=1), np.square(apart[at]).sum(axis=1)
        # Quotients are rounded to float32, so off by 2^-24 of themselves; the smallest of them have fewer digits.
        assert found.squares == pytest.approx(squares.sum(), rel=1e-6, abs=1e-74)
        noise = max(1e-6 * squares.sum() ** 0.5, 1e-44)
        assert found.errors**0.5 == pytest.approx(errors.sum() ** 0.5, rel=1e-6, abs=noise)
        losses = np.sqrt(np.divide(errors, squares, out=np.zeros(len(squares)), where=squares > 0))
        expected = dict(zip(positions(budgets[budget][0]).tolist(), losses, strict=True))
        assert [row.error for row in found.rows] == pytest.approx([expected[row.row] for row in found.rows], abs=1e-6)
        assert max([row.error for row in found.rows], default=0.0) == pytest.approx(losses.max(), abs=1e-6)


def test_a_row_too_small_for_a_scale_is_all_lost() -> None:
    rows = np.array([[3e-38, 0.0, 4e-38], [127.0, 1.5, 0.0], [0.0, 0.0, 0.0]], np.float32)
    [(_, found)] = counted(rows, {"a": (((0, 3),), ((0, 3),))}).items()
    assert [(row.row, round(row.error, 6)) for row in found.rows] == [(0, 1.0), (1, round(0.5 / 127.00886, 6))]


@given(ROWS, BUDGETS, st.integers(1, N))
def test_neither_bands_nor_their_order_change_a_bit(rows: Floats, budgets: dict[str, TensorRuns], band: int) -> None:
    assert counted(rows, budgets, band, back=True) == counted(rows, budgets)


@pytest.mark.parametrize(("beside", "apart"), [((384, 576), 1e-14), ((383, 579), 2e-8)])
def test_what_a_budget_loses_is_the_same_whichever_are_counted_with_it(beside: tuple[int, ...], apart: float) -> None:
    """A report's five digits are then the same of a budget that is added; exactly, where all cut whole blocks."""
    rows = np.random.default_rng(0).standard_normal((64, 640)).astype(np.float32)
    every, mine = ((0, 64),), ((0, 512),)
    alone = counted(rows, {"a": (every, mine)})["a"]
    others: dict[str, TensorRuns] = {f"{columns}": (every, ((0, columns),)) for columns in beside}
    among = counted(rows, {"a": (every, mine), "full": (every, ((0, 640),)), **others})["a"]
    assert (among.errors, among.squares) == pytest.approx((alone.errors, alone.squares), rel=apart, abs=0)
    assert [row.row for row in among.rows] == [row.row for row in alone.rows]
    assert [row.error for row in among.rows] == pytest.approx([row.error for row in alone.rows], rel=apart, abs=0)


def test_columns_are_of_one_class_where_the_same_budgets_keep_them() -> None:
    kept = [((0, 12),), ((0, 3), (6, 3)), ((0, 3), (6, 3))]  # a parent of 4 heads of 3, and 2 of its heads
    classes = ColumnClasses(12, kept)
    assert classes.members.shape == (3, 2)
    ones = classes.sums(np.ones((1, 12), np.float32))
    assert [float(ones[0, members].sum()) for members in classes.members] == [12.0, 6.0, 6.0]


def test_a_tensor_that_nobody_keeps_is_not_counted() -> None:
    losses = Losses({"a": {}})
    with losses.rows("w", (N, K)) as lost:
        assert lost is None
    assert losses.tallies == {"a": WeightTally()}
