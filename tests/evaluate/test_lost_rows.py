"""Which rows lose most: against numpy over whole matrices, by their numbers in the parent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.checkpoint.demo import demo_checkpoint
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate.counterpart import Counterpart, counterparts, rounded_models
from elastic_export.evaluate.from_checkpoint import checkpoint_models
from elastic_export.evaluate.lost_rows import row_errors, weight_loss
from elastic_export.plan.eight_bits import eight_bits_of
from elastic_export.runs import positions
from elastic_export.weights.quantised import Quantised
from elastic_export.weights.weight_loss import NAMED, Rounding
from elastic_runtime.errors import InputError
from elastic_runtime.ort.weight_source import WeightSource


def compared(checkpoint: Checkpoint, budget: str) -> Counterpart:
    models = checkpoint_models(checkpoint, budget)[0]
    return counterparts(rounded_models(checkpoint, models), checkpoint)[0][0]


@pytest.mark.usefixtures("cut_finely")
@pytest.mark.parametrize("budget", ["full", "small", "even"])
def test_rows_and_the_whole_are_what_numpy_says(checkpoint: Checkpoint, budget: str) -> None:
    both = compared(checkpoint, budget)
    losses, apart, total = list[tuple[float, str, int]](), 0.0, 0.0
    for name, shape in both.plain.shapes():
        if len(shape) == 2:
            plain, mine = (m.weights.load(name).astype(np.float64) for m in (both.plain, both.quantised))
            numbers = positions(both.runs[name][0])
            lost = np.linalg.norm(mine - plain, axis=1) / np.linalg.norm(plain, axis=1)
            losses += [(float(loss), name, int(row)) for loss, row in zip(lost, numbers, strict=True)]
            apart, total = apart + float(((mine - plain) ** 2).sum()), total + float((plain**2).sum())
    found = weight_loss(both)
    worst = sorted(losses, reverse=True)[:NAMED]
    assert [(row.tensor, row.row) for row in found.rows] == [(name, row) for _, name, row in worst]
    np.testing.assert_allclose([row.error for row in found.rows], [loss for loss, _, _ in worst], rtol=1e-9)
    assert found.error == pytest.approx((apart / total) ** 0.5)
    assert (found.budget, found.quantisation) == (budget, "int8")


def test_a_row_with_one_large_value_outside_the_budget_loses_most_in_it(own_source: Callable[..., Path]) -> None:
    """The scale is the parent's: what the small budget keeps of the row is rounded to few steps of it."""
    name, row = "lm_head.weight", 17

    def spoil(weights: dict[str, Any]) -> None:
        weights[name][row, -1] = 40 * np.abs(weights[name][row]).max()

    checkpoint = Checkpoint.open(own_source(spoil))
    [worst, second, *_] = weight_loss(compared(checkpoint, "small")).rows
    assert (worst.tensor, worst.row) == (name, row)
    assert worst.error > 5 * second.error
    assert worst.error > 5 * weight_loss(compared(checkpoint, "full")).rows[0].error


def test_rows_that_lose_nothing_are_not_named(checkpoint: Checkpoint) -> None:
    both = compared(checkpoint, "small")
    same = replace(both, quantised=replace(both.quantised, weights=both.plain.weights))
    found = weight_loss(same)
    assert (found.error, found.rows) == (0.0, ())


def test_errors_of_a_row_of_zeros() -> None:
    plain = np.zeros((600, 3), np.float32)
    plain[599] = [3.0, 0.0, 4.0]
    errors, squares = row_errors(np.zeros_like(plain), plain)
    assert (errors[599], squares[599]) == (25.0, 25.0)
    assert not errors[:599].any()


class Spoilt:
    """A source one of whose rows is no number."""

    def __init__(self, weights: WeightSource) -> None:
        self.load, self.shape, self.names, self._rows = weights.load, weights.shape, weights.names, weights.rows

    def rows(self, name: str, first: int, count: int, axis: int = 0) -> Any:
        return np.full_like(self._rows(name, first, count, axis), np.inf)


@pytest.mark.usefixtures("cut_finely")
@pytest.mark.parametrize(("side", "form"), [("quantised", "int8"), ("plain", "bf16")])
def test_what_is_not_finite_is_told_by_form_and_tensor(side: str, form: str, checkpoint: Checkpoint) -> None:
    both = compared(checkpoint, "full")
    model = getattr(both, side)
    spoilt = replace(both, **{side: replace(model, weights=Spoilt(model.weights))})
    subject = rf"budget full, {form} weights, tensor backbone\.embeddings\.weight: expected finite values"
    with pytest.raises(InputError, match=subject):
        weight_loss(spoilt)


@pytest.mark.parametrize("budget", ["large", "medium", "small"])
def test_an_export_of_the_demo_counts_the_same(budget: str) -> None:
    """While it rounds, in float32 and by classes of columns; what its reports say."""
    checkpoint = Checkpoint.open(demo_checkpoint())
    budgets = checkpoint.budgets.values()
    tally = Quantised(checkpoint, eight_bits_of(checkpoint), budgets, precision="bf16", parent="demo").measure()[budget]
    found, expected = Rounding.of(tally, "int8"), weight_loss(compared(checkpoint, budget))
    assert found.error == pytest.approx(expected.error, rel=1e-4)
    assert [(row.tensor, row.row) for row in found.rows] == [(row.tensor, row.row) for row in expected.rows]
    assert [row.error for row in found.rows] == pytest.approx([row.error for row in expected.rows], rel=1e-4)
