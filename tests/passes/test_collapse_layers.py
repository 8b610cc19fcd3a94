"""CollapseSkippedLayers: a branch gated to zero is the identity; one live channel keeps it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elastic_export.passes.collapse_layers import CollapseSkippedLayers

BEFORE = """g (float[B,3] x) => (float[B,3] logits) <float[B,3] r, float[B,3] b, float[B,3] s, float[3] gate = {%s}> {
  r = Relu(x)
  b = Mul(r, gate)
  s = Add(%s)
  logits = Relu(s)
}"""
AFTER = """g (float[B,3] x) => (float[B,3] logits) <float[B,3] r, float[B,3] b, float[3] gate = {0, 0, 0}> {
  r = Relu(x)
  b = Mul(r, gate)
  logits = Relu(x)
}"""


@pytest.mark.parametrize("operands", ["x, b", "b, x"])
def test_before_and_after(operands: str, parse: Any, canonical: Any, evaluate: Any, feeds_of: Any) -> None:
    model = parse(BEFORE % ("0, 0, 0", operands))
    feeds = feeds_of(model, B=2)
    expected = evaluate(model, feeds)
    assert CollapseSkippedLayers()(model).modified
    assert canonical(model) == canonical(parse(AFTER))
    np.testing.assert_array_equal(evaluate(model, feeds)["logits"], expected["logits"])


def test_it_must_not_fire_with_a_live_channel(parse: Any, canonical: Any) -> None:
    model = parse(BEFORE % ("0, 0, 1", "x, b"))
    before = canonical(model)
    assert not CollapseSkippedLayers()(model).modified
    assert canonical(model) == before


def test_it_must_not_fire_where_the_shape_would_change(parse: Any) -> None:
    model = parse(
        "g (float[3] x) => (float[2,3] logits) <float[2,3] zero = {0, 0, 0, 0, 0, 0}> { logits = Add(x, zero) }"
    )
    assert not CollapseSkippedLayers()(model).modified


def test_the_sum_may_be_an_output(parse: Any, evaluate: Any) -> None:
    model = parse(
        "g (float[B,3] x) => (float[B,3] logits) <float[3] zero = {0, 0, 0}, float[B,3] y> {"
        " y = Relu(x)\n logits = Add(y, zero) }"
    )
    assert CollapseSkippedLayers()(model).modified
    x = np.array([[-1, 0, 2]], np.float32)
    np.testing.assert_array_equal(evaluate(model, {"x": x})["logits"], [[0, 0, 2]])
