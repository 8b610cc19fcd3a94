"""Differences: what must fail fails (style: a 1 % error, a NaN, a swapped state), and nothing hides behind anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elastic_export.verify.compare import Comparison, Difference, Tally
from elastic_export.verify.plan import Plan, Step
from elastic_export.verify.shipped import real_logits

Array = np.ndarray[Any, Any]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def relative_error(got: Array, expected: Array) -> float:
    tally = Tally()
    tally.add("x", 0, got, expected)
    return tally.comparison().worst.error


def test_relative_error() -> None:
    expected = np.array([3.0, 4.0], np.float32)
    assert relative_error(expected, expected) == 0.0
    assert relative_error(np.array([3.0, 4.5], np.float32), expected) == pytest.approx(0.1)
    assert relative_error(1.01 * expected, expected) == pytest.approx(0.01, rel=1e-4)
    assert relative_error(np.zeros(2, np.float32), np.zeros(2, np.float32)) == 0.0
    assert relative_error(np.full(2, 1e-30, np.float32), np.zeros(2, np.float32)) == float("inf")
    for bad in (np.nan, np.inf, -np.inf):
        assert relative_error(np.array([3.0, bad], np.float32), expected) == float("inf")
        assert relative_error(expected, np.array([3.0, bad], np.float32)) == float("inf")


def test_huge_values_do_not_overflow() -> None:
    assert relative_error(np.full(9, 2e30, np.float32), np.full(9, 1e30, np.float32)) == pytest.approx(1.0)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_none_is_infinitely_wrong(pooled: bool, bad: float) -> None:
    tally, right = Tally(pooled=pooled), random(7)
    wrong = right.copy()
    wrong[3] = bad
    for call, values in enumerate([right, wrong, right]):
        tally.add("x", call, values, right)
    (found,) = tally.comparison().differences
    assert (found.error, found.call) == (float("inf"), 1)


def test_the_worst_row_counts() -> None:
    tally = Tally()
    large, small = 1e6 * random(50), random(5, seed=1)
    tally.add("x", 0, large, large)
    tally.add("x", 1, 1.01 * small, small)
    tally.add("x", 2, large, large)
    (found,) = tally.comparison().differences
    assert found.error == pytest.approx(0.01, rel=1e-3)
    assert (found.tensor, found.call) == ("x", 1)
    assert found.max_abs == pytest.approx(0.01 * np.abs(small).max(), rel=1e-3)
    assert found.share == pytest.approx(5 / 105)


def test_pooled_is_over_all_rows() -> None:
    tally = Tally(pooled=True)
    tally.add("x", 0, np.float32([3, 0]), np.float32([3, 0]))
    tally.add("x", 1, np.float32([4, 1]), np.float32([4, 0]))
    (found,) = tally.comparison().differences
    assert found.error == pytest.approx(1 / 5)
    assert (found.share, found.call) == (1 / 4, 1)


def heads_off(count: int, by: float, heads: int = 128) -> Difference:
    """A pooled state of which so many heads are off by so much of their size."""
    right = random(heads, 4, 8)
    wrong = right.copy()
    wrong[:count] *= 1 + by
    tally = Tally(pooled=True, flip=2.0**-6)
    tally.add_state("ssm_state.0", 0, wrong, right, 0)
    return tally.comparison().worst


def test_heads_whose_time_step_rounded_differently_do_not_count_and_more_heads_do() -> None:
    """Two of 128, and none of fewer than fifty."""
    assert (heads_off(2, 0.01).error, heads_off(2, 0.01).left_out) == (0.0, 2)
    assert heads_off(3, 0.01).error > 5e-4
    assert (heads_off(1, 0.01, heads=49).left_out, heads_off(1, 0.01, heads=50).left_out) == (0, 1)
    assert heads_off(1, 0.01, heads=8).error > 2e-3
    assert heads_off(128, 0.002).error == pytest.approx(0.002, rel=1e-3), "what is off everywhere stays so"


@pytest.mark.parametrize("by", [0.02, -1.0, float("nan")])
def test_a_head_that_no_rounding_explains_counts(by: float) -> None:
    assert heads_off(1, by).left_out <= 2
    assert not heads_off(1, by).error < 1e-3


def test_a_missing_state_counts_whatever_else_is_there() -> None:
    tally, right = Tally(pooled=True, flip=2.0**-6), random(128, 4, 8)
    tally.add_missing("ssm_state.0")
    tally.add_state("ssm_state.0", 0, right, right, 0)
    assert tally.comparison().worst.error == float("inf")


def test_a_head_counts_where_rows_do() -> None:
    tally, right = Tally(), random(128, 4, 8)
    wrong = right.copy()
    wrong[0] *= 1.5
    tally.add_state("ssm_state.0", 0, wrong, right, 0)
    assert tally.comparison().worst.error > 0.03


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"x: \(3,\) against \(4,\)"):
        Tally().add("x", 0, random(3), random(4))


def test_top1() -> None:
    tally = Tally()
    tally.add_logits(0, np.float32([1, 2, 3]), np.float32([1, 2, 3]))
    tally.add_logits(0, np.float32([1, 2, 3]), np.float32([1, 3, 2]))
    assert tally.comparison().top1 == 0.5


PLAN = Plan(0, np.zeros((2, 5), np.int64), (Step(4, (4, 2)), Step(1, (0, 1))), 8)


def outputs(every_token: bool = False) -> list[dict[str, Array]]:
    """Of each call: `logits` and the states."""
    made = []
    for number, step in enumerate(PLAN.steps):
        tokens = (step.tokens,) if every_token else ()
        states = {"conv_state.0": random(2, 3, 6, seed=number), "key_cache.0": random(2, 2, 8, 4, seed=9 + number)}
        made.append({"logits": random(2, *tokens, 11, seed=20 + number)} | states)
    return made


def compared(ours: list[dict[str, Array]], theirs: list[dict[str, Array]]) -> Comparison:
    """As a verification does: states of all rows, logits of those that were fed."""
    tally, ends = Tally(), np.cumsum([step.length for step in PLAN.steps], axis=0)
    for call, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        tally.add_states(call, mine, {n: s for n, s in other.items() if n != "logits"}, ends[call].tolist())
        for row, count in enumerate(PLAN.steps[call].length):
            pair = (real_logits(side["logits"], row, count) for side in (mine, other))
            for got, expected in zip(*pair, strict=True):
                tally.add_logits(call, got, expected)
    return tally.comparison(["logits"])


def changed(place: tuple[Any, ...], what: str, call: int, by: float = 1.01, every_token: bool = False) -> float:
    """The worst error after one value range of one output is multiplied."""
    ours = outputs(every_token)
    ours[call][what][place] *= by
    comparison = compared(ours, outputs(every_token))
    assert comparison.worst.error == 0.0 or comparison.worst.tensor == what
    return comparison.worst.error


def test_equal_runs_agree() -> None:
    comparison = compared(outputs(), outputs())
    assert {d.tensor: d.error for d in comparison.differences} == {
        "logits": 0.0,
        "conv_state.0": 0.0,
        "key_cache.0": 0.0,
    }
    assert comparison.top1 == 1.0


@pytest.mark.parametrize("what", ["logits", "conv_state.0", "key_cache.0"])
@pytest.mark.parametrize(("call", "row"), [(0, 0), (0, 1), (1, 1)])
def test_one_per_cent_anywhere_shows(what: str, call: int, row: int) -> None:
    assert changed((row,), what, call) == pytest.approx(0.01, rel=0.01)


def test_states_of_an_idle_row_count_and_its_logits_do_not() -> None:
    assert changed((0,), "conv_state.0", 1) > 0.009
    assert changed((0,), "logits", 1, float("nan")) == 0.0


def test_cache_rows_past_the_end_are_unspecified() -> None:
    assert changed((0, slice(None), slice(4, None)), "key_cache.0", 0, float("nan")) == 0.0
    assert changed((1, slice(None), slice(2, None)), "key_cache.0", 0, float("nan")) == 0.0
    assert changed((1, slice(None), slice(2, 3)), "key_cache.0", 1) > 1e-3, "written by the second call"
    assert changed((0, slice(None), slice(3, 4)), "key_cache.0", 0) > 1e-3


def test_every_real_token_counts_where_there_are_all() -> None:
    assert changed((0, 1), "logits", 0, every_token=True) == pytest.approx(0.01, rel=0.01)
    assert changed((1, slice(2, None)), "logits", 0, float("nan"), every_token=True) == 0.0


def test_a_swapped_state_shows() -> None:
    ours = outputs()
    ours[0]["conv_state.0"][:] = ours[0]["conv_state.0"][::-1].copy()
    assert compared(ours, outputs()).worst.error > 0.5


def test_a_state_that_is_not_there_is_infinitely_wrong() -> None:
    ours = outputs()
    del ours[1]["conv_state.0"]
    worst = compared(ours, outputs()).worst
    assert (worst.tensor, worst.error, worst.call) == ("conv_state.0", float("inf"), 1)
