"""Extents: sizes, and what a budget keeps of them, against plain enumeration."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from elastic_export.layers.axis import Axis, Less, One, extent, kept_of, shape_of, size_of

GROUPS = Axis("groups", ("n_groups",))
HEADS = Axis("heads", ("num_heads",), elastic=True, per_layer=True, groups=GROUPS)
CHANNELS = Axis("channels", ("head_dim",), elastic=True)
STATE = Axis("state", ("state_size",))
ROWS = ((HEADS, CHANNELS), (GROUPS, STATE), (HEADS,))


@dataclass(frozen=True)
class Widths:
    heads: tuple[int, ...]
    channels: int
    groups: int = 1
    state: int = 1


@st.composite
def cases(draw: st.DrawFn) -> tuple[Widths, Widths, int]:
    """A parent, what is kept of it, and one of its layers."""
    groups = draw(st.integers(1, 4))
    per_group = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    kept = tuple(groups * draw(st.integers(1, most)) for most in per_group)
    channels = draw(st.integers(1, 6))
    parent = Widths(tuple(groups * most for most in per_group), channels, groups, draw(st.integers(1, 3)))
    return parent, Widths(kept, draw(st.integers(1, channels))), draw(st.integers(0, len(kept) - 1))


@given(cases())
def test_what_is_kept_is_what_enumeration_keeps(case: tuple[Widths, Widths, int]) -> None:
    parent, budget, layer = case
    per_group, most = parent.heads[layer] // parent.groups, budget.heads[layer] // parent.groups
    heads = [place < most for _ in range(parent.groups) for place in range(per_group)]
    channels = [c < budget.channels for c in range(parent.channels)]
    expected = [h and c for h, c in product(heads, channels)] + [True] * (parent.groups * parent.state) + heads
    assert kept_of(ROWS, parent, budget, layer).tolist() == expected
    assert size_of(ROWS, parent, layer) == len(expected)


@given(cases())
def test_a_sub_model_is_as_large_as_what_is_kept(case: tuple[Widths, Widths, int]) -> None:
    parent, budget, layer = case
    own = Widths(budget.heads, budget.channels, parent.groups, parent.state)
    assert size_of(ROWS, own, layer) == int(kept_of(ROWS, parent, budget, layer).sum())


def test_axes_that_no_budget_cuts() -> None:
    parent, budget = Widths((6,), 5, groups=3, state=4), Widths((3,), 2)
    assert shape_of((extent(Less(STATE, 1)), extent(One()), extent(GROUPS)), parent) == (3, 1, 3)
    assert kept_of(extent(Less(STATE, 1)), parent, budget).tolist() == [True] * 3
    assert kept_of(extent(One()), parent, budget).tolist() == [True]


def test_each_group_keeps_its_first_members() -> None:
    parent, budget = Widths((6,), 1, groups=3), Widths((3,), 1)
    assert kept_of(extent(HEADS), parent, budget).tolist() == [True, False, True, False, True, False]
    assert HEADS.step(parent) == 3
    assert CHANNELS.step(parent) == 1
