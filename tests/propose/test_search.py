"""The search with losses given by a formula: nothing is read or computed, so also in the 12B's shape."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_export.layers.architecture import Architecture
from elastic_export.propose.grid import Grid, Point
from elastic_export.propose.losses import Losses, contrast_points, curve, level_points
from elastic_export.propose.search import TOGETHER, Found, Search
from elastic_export.propose.target import (
    TOLERANCE,
    Target,
    check_targets,
    parameter_measure,
    parse_count,
    parse_targets,
)
from elastic_runtime.errors import InputError
from sorted_model import ARCH
from synthetic import NANO_12B, random_architecture

PRICES = (8.0, 1.0, 3.0, 2.0, 1.0)  # of the axes, if all of one went
DEEP = 3.0


def formula(grid: Grid, point: Point) -> float:
    parts = [1 - count / most for count, most in zip(point.counts, grid.whole.counts, strict=True)]
    widths = sum(price * part**1.5 for price, part in zip(PRICES[: len(parts)], parts, strict=True))
    return widths + DEEP * (len(point.skipped) / len(grid.parent.pattern)) ** 1.5


def prepared(arch: Architecture) -> Losses:
    grid = Grid(arch, "bf16")
    grid.order = tuple(reversed(range(len(arch.pattern))))
    curves = [
        curve(grid, dimension, points, {point: formula(grid, point) for point in points})
        for dimension, points in enumerate(level_points(grid))
    ]
    return Losses(grid, curves, dict.fromkeys(range(len(arch.pattern)), 0.1))


def noted(walks: list[Sequence[Point]], grid: Grid, points: Sequence[Point]) -> list[float]:
    walks.append(points)
    return [formula(grid, point) for point in points]


@pytest.mark.parametrize(("arch", "parts"), [(NANO_12B, (0.73, 0.49)), (ARCH, (0.8, 0.5))], ids=["12b", "small"])
def test_points_have_the_size_and_each_round_costs_one_walk(arch: Architecture, parts: tuple[float, ...]) -> None:
    losses, within, measure = prepared(arch), Grid(arch, "bf16").whole, parameter_measure()
    for part in parts:
        target, walks = Target("b", int(part * arch.parameters())), list[Sequence[Point]]()
        found = Search(losses, measure, target, within).run(partial(noted, walks, losses.grid), rounds=4)
        seen = [point for walk in walks for point in walk]
        assert len(walks) <= 4
        assert all(1 <= len(walk) <= TOGETHER for walk in walks)
        assert len(set(seen)) == len(seen)
        for point in seen:
            assert point.within(within)
            assert target.limit * (1 - TOLERANCE) <= measure.of(losses.grid.architecture(point)) <= target.limit
        assert found.loss == min(formula(losses.grid, point) for point in seen)
        within = found.point


def test_what_costs_most_is_cut_last() -> None:
    losses = prepared(NANO_12B)
    target = Target("b", int(0.73 * NANO_12B.parameters()))
    search = Search(losses, parameter_measure(), target, losses.grid.whole)
    found = search.run(lambda points: [formula(losses.grid, point) for point in points], rounds=3).point
    assert found.counts[0] / losses.grid.whole.counts[0] > 0.95  # hidden
    assert found.counts[1] / losses.grid.whole.counts[1] < 0.8  # FFN


def test_of_a_small_grid_the_best_point_is_found() -> None:
    """Against all that there are, layers leaving in their order."""
    losses, limit, measure = prepared(ARCH), ARCH.parameters() // 2, parameter_measure()
    grid = losses.grid
    counts = itertools.product(*(range(low, most + 1) for low, most in zip(grid.least, grid.whole.counts, strict=True)))
    points = (Point(each, grid.first(gone)) for each in counts for gone in range(5))
    fitting = [p for p in points if limit * (1 - TOLERANCE) <= measure.of(grid.architecture(p)) <= limit]
    found = Search(losses, measure, Target("b", limit), grid.whole).run(partial(noted, [], grid), rounds=2)
    assert len(fitting) > 100
    assert found.loss == min(formula(grid, point) for point in fitting)


def test_rounds_mend_what_single_cuts_led_to_expect() -> None:
    losses = prepared(NANO_12B)
    alike = [[(start, 0.0), (end, 1.0)] for (start, _), *_, (end, _) in losses.curves]
    losses, target = replace(losses, curves=alike), Target("b", NANO_12B.parameters() // 2)
    found = [
        Search(losses, parameter_measure(), target, losses.grid.whole).run(partial(noted, [], losses.grid), rounds).loss
        for rounds in (1, 2, 6)
    ]
    assert found[0] > found[1] > found[2]


def test_a_size_between_two_units_is_refused() -> None:
    losses = prepared(ARCH)
    least = losses.grid.smallest
    target = Target("b", parameter_measure().of(losses.grid.architecture(least)) - 1)
    with pytest.raises(InputError, match=r"--params b: expected a budget from .* found none that kernels"):
        Search(losses, parameter_measure(), target, losses.grid.whole).run(lambda points: [], 1)


def searched(losses: Losses, name: str, size: int, within: Point) -> Found:
    target = Target(name, size)
    return Search(losses, parameter_measure(), target, within).run(partial(noted, [], losses.grid), 1)


def named_sizes(refused: InputError) -> list[int]:
    """What a refusal calls the nearest, as a user reads it."""
    told = re.fullmatch(r"none that kernels and engines take in whole units(?:; the nearest: (.+))?", refused.found)
    assert told is not None, refused.found
    return [parse_count(size) for size in told[1].split(" and ")] if told[1] else []


ONE_LAYER = replace(ARCH, pattern="*", ffn_sizes=(), mamba_heads=())


def test_a_size_beside_one_that_was_refused_is_found() -> None:
    """The advice helps: a size right above one that the error names has a budget."""
    losses, measure = prepared(ONE_LAYER), parameter_measure()
    with pytest.raises(InputError) as refused:
        searched(losses, "b", ONE_LAYER.parameters() * 3 // 5, losses.grid.whole)
    assert refused.value.todo == "name a size that is 1% above a nearest one"
    smaller, larger = named_sizes(refused.value)
    for size in (smaller, larger):
        found = searched(losses, "b", int(size * 1.01), losses.grid.whole).point
        assert measure.of(losses.grid.architecture(found)) == size


def test_the_parent_is_not_named() -> None:
    """A size 1% above it would be refused."""
    losses = prepared(ONE_LAYER)
    with pytest.raises(InputError) as refused:
        searched(losses, "b", ONE_LAYER.parameters() - 1, losses.grid.whole)
    [size] = named_sizes(refused.value)
    assert size < ONE_LAYER.parameters()


@settings(max_examples=30)
@given(st.data())
def test_every_size_that_a_refusal_names_can_be_asked_for(data: st.DataObject) -> None:
    """By the same command with that size in place of the one refused: it is neither out of reach nor that of the larger
    budget beside it, and has a budget.
    """
    arch = random_architecture(np.random.default_rng(data.draw(st.integers(0, 1 << 20))))
    measure, grid, losses = parameter_measure(), Grid(arch, "bf16"), prepared(arch)
    least, within, beside = grid.architecture(grid.smallest), losses.grid.whole, ()
    low, high = least.parameters(), arch.parameters()
    if high > 2 * low and data.draw(st.booleans()):
        limit = data.draw(st.integers(2 * low, high))
        try:
            within, beside, high = searched(losses, "a", limit, within).point, (limit,), limit * 19 // 20
        except InputError:
            return
    limit = data.draw(
        st.integers(low, high) | st.integers(max(low, high * 49 // 50), high)
    )  # often beside the larger one
    try:
        searched(losses, "b", limit, within)
    except InputError as refused:
        for size in named_sizes(refused):
            asked = (*beside, size * 101 // 100)
            targets = parse_targets("--params", ",".join(f"{count / 1000}K" for count in asked), None)
            check_targets(targets, measure, least, arch)
            assert searched(losses, "b", targets[-1].limit, within)


def test_losses_lie_between_what_was_measured_and_go_on_beyond() -> None:
    grid = Grid(ARCH, "bf16")
    grid.order = tuple(range(9))
    flat = [[(count, 0.0)] for count in grid.whole.counts]
    hidden = [(grid.whole.counts[0], 0.0), (6, 1.0), (4, 3.0)]
    losses = Losses(grid, [hidden, *flat[1:], [(0, 0.0), (1, 0.5), (2, 1.5)]], dict.fromkeys(range(9), 0.5) | {8: 0.75})

    def at(count: int, *skipped: int) -> float:
        return losses.expected(Point((count, *grid.whole.counts[1:]), frozenset(skipped)))

    assert [at(count) for count in (8, 7, 6, 5, 4, 2)] == [0.0, 0.5, 1.0, 2.0, 3.0, 5.0]
    assert at(8, 0) == 0.5
    assert at(8, 8) == 0.75  # not the first to leave: by what it costs alone
    assert at(8, 0, 1, 2) == 2.5


def test_a_deeper_cut_that_costs_less_is_taken_for_chance() -> None:
    grid = Grid(ARCH, "bf16")
    points = level_points(grid)[0]
    found = curve(grid, 0, points, dict(zip(points, (0.5, 0.4, 0.6), strict=True)))
    assert [loss for _, loss in found] == [0.0, 0.5, 0.5, 0.6]


def test_what_cost_more_than_expected_tells_of_what_is_near() -> None:
    losses = prepared(ARCH)
    low, near, far = (Point((count, *losses.grid.whole.counts[1:])) for count in (2, 3, 7))
    tried = {low: losses.expected(low) + 2, losses.grid.whole: 0.0}
    wrong = [losses.informed(point, tried) - losses.expected(point) for point in (low, near, far)]
    assert 2 > wrong[0] > wrong[1] > 1 > wrong[2] > 0


def test_every_axis_is_compared_where_a_quarter_goes() -> None:
    grid = Grid(NANO_12B, "bf16")
    points = contrast_points(grid)
    kept = [point.counts[dimension] for dimension, point in enumerate(points) if point is not None]
    assert kept == [60, 240, 12, 8, 4]
