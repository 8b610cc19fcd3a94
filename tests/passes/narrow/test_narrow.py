"""Narrow: before and after, numbers, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_export.emit.embed import read_weight
from elastic_export.graph.facts import TensorSlice, Weight, facts_of
from elastic_export.passes.narrow import Narrow
from elastic_runtime.errors import InternalError
from weight_slices import slices_of

BEFORE = """g (float[B,4] x, float[5,4] w1, float[2,5] w2) => (float[B,2] logits)
<float[4,5] t1, float[B,5] h, float[5] c = {1, 0, 0, 1, 1}, float[B,5] g1, float[B,5] r, float[5,2] t2> {
  t1 = Transpose <perm: ints = [1, 0]> (w1)
  h = MatMul(x, t1)
  g1 = Mul(h, c)
  r = Relu(g1)
  t2 = Transpose <perm: ints = [1, 0]> (w2)
  logits = MatMul(r, t2)
}"""
AFTER = """g (float[B,4] x, float[3,4] w1, float[2,3] w2) => (float[B,2] logits)
<float[4,3] t1, float[B,3] h, float[3] c = {1, 1, 1}, float[B,3] g1, float[B,3] r, float[3,2] t2> {
  t1 = Transpose <perm: ints = [1, 0]> (w1)
  h = MatMul(x, t1)
  g1 = Mul(h, c)
  r = Relu(g1)
  t2 = Transpose <perm: ints = [1, 0]> (w2)
  logits = MatMul(r, t2)
}"""
KEPT = [0, 3, 4]


def test_before_and_after(parse: Any, canonical: Any, evaluate: Any, feeds_of: Any) -> None:
    """Dead channels go from weights, constants and values; the weights record the runs, union of pieces."""
    model = parse(BEFORE)
    feeds = feeds_of(model, B=2)
    expected = evaluate(model, feeds)["logits"]
    assert Narrow()(model).modified
    assert canonical(model) == canonical(parse(AFTER))
    assert [part.runs for part in facts_of(model).weights["w1"].parts] == [(((0, 1), (3, 2)), ((0, 4),))]
    assert [part.runs for part in facts_of(model).weights["w2"].parts] == [(((0, 2),), ((0, 1), (3, 2)))]
    cut = feeds | {"w1": feeds["w1"][KEPT], "w2": feeds["w2"][:, KEPT]}
    np.testing.assert_allclose(evaluate(model, cut)["logits"], expected, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([0, 1]), min_size=5, max_size=5).filter(any))
def test_the_channels_of_a_merged_weight_are_cut_from_its_parts(parse: Any, keep: list[int]) -> None:
    """Whatever stays of it, even nothing of a part; the parts lie along the axis that is cut, in either matrix."""
    model = parse(BEFORE.replace("1, 0, 0, 1, 1", ", ".join(map(str, keep))))
    whole = {"w1": np.arange(20.0).reshape(5, 4), "w2": np.arange(10.0).reshape(2, 5)}
    tensors = {
        **dict(zip(("q", "k"), np.split(whole["w1"], [2], 0), strict=True)),
        **dict(zip(("left", "right"), np.split(whole["w2"], [3], 1), strict=True)),
    }
    facts = facts_of(model)
    for name, parts, axis in (("w1", ("q", "k"), 0), ("w2", ("left", "right"), 1)):
        facts.weights[name] = Weight(tuple(p for n in parts for p in Weight.of(n, tensors[n].shape).parts), axis)
    Narrow()(model)
    kept = np.flatnonzero(keep)
    for name, cut in (("w1", whole["w1"][kept]), ("w2", whole["w2"][:, kept])):
        weight = facts.weights[name]
        np.testing.assert_array_equal(read_weight(weight, slices_of(tensors)), cut)
        assert all(part.runs[weight.axis] for part in weight.parts)  # what is gone is not named any more
    assert facts.tensors() == [
        *(name for name, part in (("q", keep[:2]), ("k", keep[2:])) if any(part)),
        *(name for name, part in (("left", keep[:3]), ("right", keep[3:])) if any(part)),
    ]


def test_it_must_not_fire_without_a_dead_channel(parse: Any, canonical: Any) -> None:
    text = BEFORE.replace("{1, 0, 0, 1, 1}", "{1, 2, 1, 1, 1}")
    model = parse(text)
    assert not Narrow()(model).modified
    assert canonical(model) == canonical(parse(text))


def test_it_must_not_cut_logits(parse: Any, canonical: Any) -> None:
    """A channel of the logits that is always zero is part of the interface."""
    text = "g (float[B,3] x) => (float[B,3] logits) <float[3] c = {1, 0, 1}> { logits = Mul(x, c) }"
    model = parse(text)
    assert not Narrow()(model).modified
    assert canonical(model) == canonical(parse(text))


def test_a_weight_narrowed_before_is_an_error(parse: Any) -> None:
    model = parse(BEFORE)
    Narrow()(model)
    with pytest.raises(InternalError, match=r"^weight w1: expected a whole tensor, found one narrowed before\."):
        Narrow()(model)


def test_unbound_masks_are_an_error(parse: Any) -> None:
    model = parse("g (float[B,3] x, float[3] mask.hidden) => (float[B,3] logits) { logits = Mul(x, mask.hidden) }")
    with pytest.raises(InternalError, match=r"^narrow: expected a graph whose budget is bound, found mask inputs\."):
        Narrow()(model)


def test_a_dead_node_is_an_error_that_names_it(parse: Any) -> None:
    model = parse("g (float[B,3] x) => (float[B,3] logits) <float[B,3] idle> { idle = Relu(x)\n logits = Relu(x) }")
    next(iter(model.graph)).name = "idle_node"
    text = r"^node idle_node \(Relu\): expected a node that the logits need, after RemoveDead, found a dead one\."
    with pytest.raises(InternalError, match=text):
        Narrow()(model)


def test_an_axis_of_no_live_channel_is_an_error(parse: Any) -> None:
    model = parse(BEFORE.replace("{1, 0, 0, 1, 1}", "{0, 0, 0, 0, 0}"))
    with pytest.raises(InternalError, match=r"expected at least one live channel an axis, found an axis of none\."):
        Narrow()(model)


def test_ensures_sees_a_state_whose_sides_differ(parse: Any) -> None:
    model = parse("g (float[B,3] ssm_state.0) => (float[B,3] logits, float[B,3] ssm_state_out.0) {"
                  " ssm_state_out.0 = Relu(ssm_state.0)\n logits = Relu(ssm_state.0) }")  # fmt: skip
    model.graph.outputs[1].shape = ir.Shape(["B", 2])
    with pytest.raises(InternalError, match=r"^state ssm_state\.0: expected \[B,3\], found \[B,2\] coming out\."):
        Narrow().ensures(model)


def test_ensures_sees_a_weight_of_another_shape_than_its_runs(parse: Any) -> None:
    model = parse(BEFORE)
    facts = facts_of(model)
    facts.weights["w1"] = Weight((TensorSlice("w1", (5, 4), (((0, 2),), ((0, 4),))),))
    with pytest.raises(InternalError, match=r"^weight w1: expected \(2, 4\), found \[5,4\]\."):
        Narrow().ensures(model)
