"""RenumberStates: states count the kept layers; weights keep their names."""

from __future__ import annotations

from typing import Any

import pytest

from elastic_export.graph.facts import facts_of
from elastic_export.passes.renumber_states import RenumberStates
from elastic_runtime.errors import InternalError

TEXT = """g (float[B,3] x, float[3] w.5, float[B,3] ssm_state.{a}, float[B,3] ssm_state.{b},
  float[B,1,S,3] key_cache.{c})
=> (float[B,3] logits, float[B,3] ssm_state_out.{a}, float[B,3] ssm_state_out.{b}, float[B,1,S,3] key_cache_out.{c}) {{
  ssm_state_out.{a} = Mul(ssm_state.{a}, w.5)
  ssm_state_out.{b} = Add(ssm_state.{b}, x)
  key_cache_out.{c} = Relu(key_cache.{c})
  logits = Add(ssm_state.{a}, ssm_state.{b})
}}"""


def test_before_and_after(parse: Any, canonical: Any) -> None:
    model = parse(TEXT.format(a=5, b=2, c=4))
    assert RenumberStates()(model).modified
    assert canonical(model) == canonical(parse(TEXT.format(a=1, b=0, c=0)))
    facts = facts_of(model)
    assert {name: (s.output, s.layer) for name, s in facts.states.items()} == {
        "ssm_state.0": ("ssm_state_out.0", 2),
        "key_cache.0": ("key_cache_out.0", 4),
        "ssm_state.1": ("ssm_state_out.1", 5),
    }
    assert list(facts.weights) == ["w.5"]


def test_it_must_not_fire_on_numbered_states(parse: Any, canonical: Any) -> None:
    model = parse(TEXT.format(a=0, b=1, c=0))
    assert not RenumberStates()(model).modified
    assert canonical(model) == canonical(parse(TEXT.format(a=0, b=1, c=0)))


def test_names_that_occur_twice_are_an_error(parse: Any) -> None:
    model = parse(TEXT.format(a=5, b=2, c=4))
    model.graph.inputs[0].name = "ssm_state.0"
    with pytest.raises(InternalError, match=r"^states: expected names that occur once, found "):
        RenumberStates()(model)
