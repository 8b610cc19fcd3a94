"""The analysis: roots, and the fixpoint over the pairs of states."""

from __future__ import annotations

from typing import Any

import numpy as np

from elastic_export.passes.narrow.analysis import analyse, state_pairs


def kept(model: Any) -> dict[str, Any]:
    live = analyse(model)
    return {str(v.name): np.flatnonzero(live.need(v)[-1]).tolist() for v in model.graph.inputs}


def test_a_state_output_is_no_root(parse: Any) -> None:
    """x feeds nothing but a state that nobody reads."""
    model = parse("""g (float[B,2] x, float[B,2] y, float[B,2] ssm_state.0)
=> (float[B,2] logits, float[B,2] ssm_state_out.0) {
  ssm_state_out.0 = Add(ssm_state.0, x)
  logits = Relu(y)
}""")
    assert kept(model) == {"x": [], "y": [0, 1], "ssm_state.0": []}


def test_what_a_read_state_is_made_of_is_needed_through_its_pair(parse: Any) -> None:
    """logits read channels 0 and 2 of the state of the last call, which was made of x and of the other state."""
    model = parse("""g (float[B,3] x, float[B,3] ssm_state.0, float[B,3] ssm_state.1)
=> (float[B,1] logits, float[B,3] ssm_state_out.0, float[B,3] ssm_state_out.1)
<float[3] c = {1, 0, 1}, float[B,3] a, float[3,1] m = {1, 1, 1}> {
  ssm_state_out.0 = Relu(ssm_state.0)
  ssm_state_out.1 = Add(ssm_state.0, x)
  a = Mul(ssm_state.1, c)
  logits = MatMul(a, m)
}""")
    assert kept(model) == {"x": [0, 2], "ssm_state.0": [0, 2], "ssm_state.1": [0, 2]}


def test_needs_found_late_reach_what_was_visited_before(parse: Any) -> None:
    """The first product needs channel 1 of y because of the sum at the end: another sweep carries it to its matrix."""
    model = parse("""g (float[B,3] x, float[2,3] w) => (float[B,2] logits)
<float[3] c = {1, 0, 0}, float[B,3] y, float[3,2] t, float[B,2] p, float[3,2] n = {1, 1, 1, 1, 1, 1}, float[B,2] s,
 float[B,3] r> {
  y = Mul(x, c)
  t = Transpose <perm: ints = [1, 0]> (w)
  p = MatMul(y, t)
  r = Add(y, x)
  s = MatMul(r, n)
  logits = Add(p, s)
}""")
    assert kept(model) == {"x": [0, 1, 2], "w": [0, 1, 2]}


def test_pairs_come_from_the_facts(parse: Any) -> None:
    model = parse("""g (float[B,2] ssm_state.3) => (float[B,2] logits, float[B,2] ssm_state_out.3) {
  ssm_state_out.3 = Relu(ssm_state.3)
  logits = Relu(ssm_state.3)
}""")
    assert [(a.name, b.name) for a, b in state_pairs(model)] == [("ssm_state.3", "ssm_state_out.3")]
