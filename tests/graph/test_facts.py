"""Facts: runs of boolean vectors, and copies that do not share."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.graph.facts import TensorSlice, Weight, clone_with_facts, facts_of
from elastic_export.runs import full_runs, positions, runs_of
from elastic_runtime.errors import InternalError


@given(st.lists(st.booleans(), max_size=40))
def test_runs_are_the_kept_indices_in_maximal_pieces(keep: list[bool]) -> None:
    runs = runs_of(np.array(keep, dtype=bool))
    assert [i for start, count in runs for i in range(start, start + count)] == [i for i, k in enumerate(keep) if k]
    assert all(count > 0 for _, count in runs)
    assert all(a + n < b for (a, n), (b, _) in pairwise(runs))


def test_a_slice_has_the_shape_of_its_runs() -> None:
    assert TensorSlice("w", (9, 4), (((0, 2), (5, 3)), ((1, 1),))).shape == (5, 1)
    assert full_runs((3, 2)) == (((0, 3),), ((0, 2),))


@given(st.data())
def test_cutting_a_weight_is_cutting_the_array_that_its_parts_make(data: st.DataObject) -> None:
    """Along any axis, again and again: the runs stay those of the parent's tensors."""
    axis, shape = data.draw(st.integers(0, 1)), [data.draw(st.integers(1, 4)) for _ in range(2)]
    parts, arrays = list[TensorSlice](), dict[str, np.ndarray]()
    for name in "abc"[: data.draw(st.integers(1, 3))]:
        shape[axis] = data.draw(st.integers(1, 4))
        arrays[name] = np.arange(100 * len(parts), 100 * len(parts) + np.prod(shape)).reshape(shape)
        parts.append(TensorSlice(name, tuple(shape), full_runs(shape)))
    weight, whole = Weight(tuple(parts), axis), np.concatenate(list(arrays.values()), axis)
    for _ in range(2):
        keep = [np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))) for n in whole.shape]
        weight, whole = weight.cut(keep), whole[np.ix_(*keep)]
        cut = [arrays[p.tensor][np.ix_(*map(positions, p.runs))] for p in weight.parts]
        np.testing.assert_array_equal(np.concatenate(cut, axis), whole)
        assert weight.shape == whole.shape
        assert all(runs == runs_of(np.isin(np.arange(9), positions(runs))) for p in weight.parts for runs in p.runs)


@pytest.mark.parametrize(
    ("shapes", "axis", "text"),
    [
        ([], 0, "weight of no tensor: expected tensors that agree on all axes but 0, found none."),
        (
            [(2, 3), (2, 4)],
            0,
            "weight of a and b: expected tensors that agree on all axes but 0, found (2, 3) and (2, 4).",
        ),
        ([(2, 3)], 2, "weight of a: expected tensors that agree on all axes but 2, found (2, 3)."),
    ],
)
def test_tensors_that_make_no_weight_are_refused_by_name(shapes: list[Any], axis: int, text: str) -> None:
    with pytest.raises(InternalError) as caught:
        Weight(tuple(TensorSlice(n, s, full_runs(s)) for n, s in zip("ab", shapes, strict=False)), axis)
    assert str(caught.value).startswith(text)


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
