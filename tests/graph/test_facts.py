"""Facts: runs of boolean vectors, and copies that do not share."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.graph.facts import WeightSlice, clone_with_facts, facts_of
from elastic_export.runs import full_runs, runs_of


@given(st.lists(st.booleans(), max_size=40))
def test_runs_are_the_kept_indices_in_maximal_pieces(keep: list[bool]) -> None:
    runs = runs_of(np.array(keep, dtype=bool))
    assert [i for start, count in runs for i in range(start, start + count)] == [i for i, k in enumerate(keep) if k]
    assert all(count > 0 for _, count in runs)
    assert all(a + n < b for (a, n), (b, _) in pairwise(runs))


def test_a_slice_has_the_shape_of_its_runs() -> None:
    assert WeightSlice("w", (9, 4), (((0, 2), (5, 3)), ((1, 1),))).shape == (5, 1)
    assert full_runs((3, 2)) == (((0, 3),), ((0, 2),))


def test_clones_share_nothing_that_changes(traced: ir.Model) -> None:
    clone = clone_with_facts(traced)
    facts_of(clone).weights.clear()
    facts_of(clone).states.clear()
    facts_of(clone).masks.clear()
    clone.graph.remove(list(clone.graph)[-1:], safe=False)
    assert facts_of(traced).weights
    assert facts_of(traced).states
    assert facts_of(traced).masks
    assert len(list(traced.graph)) == len(list(clone.graph)) + 1
