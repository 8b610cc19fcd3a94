"""RemoveDead: states that only feed themselves go, states that the logits read stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from elastic_export.graph.facts import facts_of
from elastic_export.passes.remove_dead import RemoveDead
from elastic_runtime.errors import InternalError

BEFORE = """g (int64[B] position, float[B,3] x, float[B,3] ssm_state.0, float[B,3] ssm_state.1, float[3] w, float[3] w2)
=> (float[B,3] logits, float[B,3] ssm_state_out.0, float[B,3] ssm_state_out.1)
<float[B,3] d, float[3] unused = {1, 2, 3}> {
  ssm_state_out.0 = Mul(ssm_state.0, w)
  ssm_state_out.1 = Add(ssm_state.1, x)
  d = Relu(x)
  logits = Add(ssm_state.1, x)
}"""
AFTER = """g (int64[B] position, float[B,3] x, float[B,3] ssm_state.1)
=> (float[B,3] logits, float[B,3] ssm_state_out.1) {
  ssm_state_out.1 = Add(ssm_state.1, x)
  logits = Add(ssm_state.1, x)
}"""


def test_before_and_after(parse: Any, canonical: Any, evaluate: Any, feeds_of: Any) -> None:
    model = parse(BEFORE)
    feeds = feeds_of(model, B=2)
    expected = evaluate(model, feeds)
    assert RemoveDead()(model).modified
    assert canonical(model) == canonical(parse(AFTER))
    found = evaluate(model, feeds)
    assert list(found) == ["logits", "ssm_state_out.1"]
    assert all(np.array_equal(found[name], expected[name]) for name in found)
    assert list(facts_of(model).states) == ["ssm_state.1"]
    assert list(facts_of(model).weights) == []


def test_a_state_is_needed_through_another_state(parse: Any) -> None:
    """logits read 1, 1 is made of 0: the fixpoint keeps both."""
    model = parse("""g (float[B,3] ssm_state.0, float[B,3] ssm_state.1)
=> (float[B,3] logits, float[B,3] ssm_state_out.0, float[B,3] ssm_state_out.1) {
  ssm_state_out.0 = Relu(ssm_state.0)
  ssm_state_out.1 = Add(ssm_state.1, ssm_state.0)
  logits = Relu(ssm_state.1)
}""")
    assert not RemoveDead()(model).modified
    assert list(facts_of(model).states) == ["ssm_state.0", "ssm_state.1"]


def test_token_inputs_are_the_interface_and_stay(parse: Any) -> None:
    model = parse(
        "g (int64[B,T] input_ids, int64[B] position, int64[B] length, float[B] x) => (float[B] logits)"
        " { logits = Relu(x) }"
    )
    assert not RemoveDead()(model).modified
    assert [value.name for value in model.graph.inputs] == ["input_ids", "position", "length", "x"]


def test_facts_without_an_input_are_an_error(parse: Any) -> None:
    model = parse("g (float[3] w) => (float[3] logits) { logits = Relu(w) }")
    facts_of(model).weights["lost"] = facts_of(model).weights["w"]
    with pytest.raises(InternalError, match=r"^graph facts: expected an input for each, found none for \['lost'\]\."):
        RemoveDead()(model)


def test_a_dead_node_left_is_an_error(parse: Any) -> None:
    model = parse("g (float[3] x) => (float[3] logits) { logits = Relu(x) }")
    model.graph.append(ir.node("Relu", [model.graph.inputs[0]], name="idle"))
    with pytest.raises(InternalError, match=r"^node idle: expected a reader, found a dead node\."):
        RemoveDead().ensures(model)
