"""Points and their budgets: units, ends, nesting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.checkpoint.budgets import budgets_document, nesting_warnings, parse_budgets
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.plan.limits import check_plugins
from elastic_export.products import TENSORRT_RTX
from elastic_export.propose.grid import Grid, Point
from sorted_model import ARCH
from synthetic import NANO_12B, random_architecture

HEAD_DIM, HEADS, QUERIES = 3, 2, 4


def test_units_of_the_12b() -> None:
    grid = Grid(NANO_12B, "bf16")
    assert [axis.key for axis in grid.axes] == [
        "hidden_size",
        "intermediate_size",
        "mamba_num_heads",
        "mamba_head_dim",
        "num_attention_heads",
    ]
    assert grid.whole.counts == (80, 320, 16, 10, 5)
    assert grid.least == (20, 80, 4, 3, 2)
    budget = grid.budget(Point((70, 245, 14, 8, 4), frozenset({54, 55})))
    assert budget == Budget("proposed", 4480, (15680,) * 28, (112,) * 28, 64, 32, (54, 55))


def test_the_whole_grid_is_the_parent() -> None:
    for arch in (NANO_12B, ARCH):
        grid = Grid(arch, "bf16")
        assert grid.architecture(grid.whole) == arch


def test_no_point_falls_out_of_the_kernels_that_take_the_parent() -> None:
    """Four query heads are the fewest that the fused kernel takes: a fourth of eight would be two."""
    parent = replace(ARCH, attention_heads=8, kv_heads=2)
    narrow, wide = Grid(parent, "bf16"), Grid(parent, "fp32")
    assert narrow.budget(Point(narrow.least)).attention_heads == 4
    assert wide.budget(Point(wide.least)).attention_heads == 2  # nothing is fused in float32


@given(st.data())
def test_every_point_is_a_budget_nested_in_those_above(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 20)))
    arch = random_architecture(rng)
    grid = Grid(arch, "bf16")
    grid.order = tuple(int(layer) for layer in rng.permutation(len(arch.pattern)))
    large = _random_point(grid, rng, grid.whole)
    small = _random_point(grid, rng, large)
    assert small.within(large)
    budgets = [grid.budget(point, name) for point, name in ((grid.whole, "w"), (large, "l"), (small, "s"))]
    document = budgets_document(arch, budgets)
    found, warnings = parse_budgets(document, arch, "proposed")
    assert list(found.values()) == budgets
    assert warnings == nesting_warnings(arch, budgets) == []
    for kind in set(arch.pattern):
        kept = budgets[2].architecture(arch).pattern.count(kind)
        assert kept >= arch.pattern.count(kind) / 2


def _random_point(grid: Grid, rng: np.random.Generator, within: Point) -> Point:
    counts = [int(rng.integers(least, most + 1)) for least, most in zip(grid.least, within.counts, strict=True)]
    point = Point(tuple(counts), within.skipped)
    for _ in range(int(rng.integers(0, 4))):
        point = grid.moved(point, grid.depth, -1) or point
    return point


def test_steps_up_and_down() -> None:
    grid = Grid(ARCH, "bf16")
    grid.order = (3, 1, 0, 2, 4, 5, 6, 7, 8)
    down = grid.moved(grid.whole, grid.depth, -2)
    assert down is not None
    assert down.skipped == {3, 1}
    assert grid.moved(down, grid.depth, 1) == Point(grid.whole.counts, frozenset({3}))
    assert grid.moved(down, grid.depth, 3) is None
    assert grid.room(down, grid.depth, grid.whole) == 2
    assert grid.moved(grid.whole, 0, 1) is None
    assert grid.moved(grid.whole, 0, -grid.whole.counts[0]) is None
    narrow = grid.moved(grid.whole, HEADS, -1)
    assert narrow is not None
    assert grid.budget(narrow).mamba_heads == (6, 6, 6)  # two SSM groups lose a head each
    assert grid.room(narrow, HEADS, grid.whole) == 1


@pytest.mark.parametrize("arch", [NANO_12B, ARCH], ids=["12b", "small"])
def test_the_smallest_point_can_be_built(arch: Architecture) -> None:
    grid = Grid(arch, "bf16")
    grid.order = tuple(range(len(arch.pattern)))
    smallest = grid.architecture(grid.smallest)
    check_plugins(smallest, "bf16")
    assert TENSORRT_RTX.fuses_attention("bf16", smallest.attention_heads, smallest.attention_head_dim)
    assert smallest.parameters() < 0.4 * arch.parameters()
