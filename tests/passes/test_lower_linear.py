"""LowerLinear: MatMul(x, Transpose(W)) becomes Gemm on two axes, W as it lies in the checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elastic_export.passes.lower_linear import LowerLinear

BEFORE = """g (int64[B,T] input_ids, float[B,T,3] x, float[5,3] w1, float[5,3] w2) => (float[B,T,5] logits)
<float[3,5] t1, float[3,5] t2, float[B,T,5] a, float[B,T,5] b> {
  t1 = Transpose <perm: ints = [1, 0]> (w1)
  a = MatMul(x, t1)
  t2 = Transpose <perm: ints = [1, 0]> (w2)
  b = MatMul(x, t2)
  logits = Add(a, b)
}"""
AFTER = """g (int64[B,T] input_ids, float[B,T,3] x, float[5,3] w1, float[5,3] w2) => (float[B,T,5] logits)
<int64[2] flat = {-1, 3}, int64[1] five = {5}, int64[2] bt, float["B*T",3] x2, float["B*T",5] p1, float["B*T",5] p2,
 int64[3] shape, float[B,T,5] a, float[B,T,5] b> {
  bt = Shape(input_ids)
  x2 = Reshape(x, flat)
  p1 = Gemm <transB: int = 1> (x2, w1)
  shape = Concat <axis: int = 0> (bt, five)
  a = Reshape(p1, shape)
  p2 = Gemm <transB: int = 1> (x2, w2)
  b = Reshape(p2, shape)
  logits = Add(a, b)
}"""


def test_before_and_after(parse: Any, canonical: Any, evaluate: Any, feeds_of: Any) -> None:
    """x is flattened once, the shape is made once, both linear layers read them."""
    model = parse(BEFORE)
    feeds = feeds_of(model, B=2, T=4)
    expected = evaluate(model, feeds)["logits"]
    assert LowerLinear()(model).modified
    assert canonical(model) == canonical(parse(AFTER))
    np.testing.assert_allclose(evaluate(model, feeds)["logits"], expected, rtol=1e-5)


def test_two_axes_need_no_reshape(parse: Any, canonical: Any) -> None:
    head = "g (int64[B,T] input_ids, float[B,3] x, float[5,3] w) => (float[B,5] logits)"
    model = parse(head + " <float[3,5] t> {\n t = Transpose <perm: ints = [1, 0]> (w)\n logits = MatMul(x, t) }")
    assert LowerLinear()(model).modified
    assert canonical(model) == canonical(parse(head + " { logits = Gemm <transB: int = 1> (x, w) }"))


@pytest.mark.parametrize(
    "body",
    [
        "(int64[B,T] input_ids, float[B,3] x, float[3,5] w) => (float[B,5] logits) { logits = MatMul(x, w) }",
        """(int64[B,T] input_ids, float[B,2,3,4] x, float[B,2,5,4] k) => (float[B,2,3,5] logits) <float[B,2,4,5] t> {
  t = Transpose <perm: ints = [0, 1, 3, 2]> (k)
  logits = MatMul(x, t) }""",
    ],
)
def test_it_must_not_fire_without_a_transposed_matrix(body: str, parse: Any, canonical: Any) -> None:
    model = parse("g " + body)
    assert not LowerLinear()(model).modified
    assert canonical(model) == canonical(parse("g " + body))
