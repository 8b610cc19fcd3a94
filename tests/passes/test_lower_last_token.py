"""Lowering LastToken: GatherND of row length - 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from elastic_export.ops.last_token import LAST_TOKEN
from elastic_export.passes.lower_ops import LowerOp

LOWER = LowerOp(LAST_TOKEN)
BEFORE = "g (float[B,T,2] x, int64[B] length) => (float[B,2] logits) { logits = elastic.LastToken(x, length) }"
AFTER = """g (float[B,T,2] x, int64[B] length) => (float[B,2] logits)
<int64 one = {1}, int64 zero = {0}, int64[1] axis = {1}, int64[B] less, int64[B] last, int64[B,1] index> {
  less = Sub(length, one)
  last = Max(less, zero)
  index = Unsqueeze(last, axis)
  logits = GatherND <batch_dims: int = 1> (x, index)
}"""


def test_before_and_after(parse: Any, canonical: Any, evaluate: Any, feeds_of: Any) -> None:
    model = parse(BEFORE)
    feeds = feeds_of(model, B=3, T=4) | {"length": np.array([4, 1, 0])}
    expected = evaluate(model, feeds)["logits"]
    assert LOWER(model).modified
    assert canonical(model) == canonical(parse(AFTER))
    found = evaluate(model, feeds)["logits"]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, [feeds["x"][0, 3], feeds["x"][1, 0], feeds["x"][2, 0]])


def test_it_must_not_fire_on_logits_of_every_token(parse: Any) -> None:
    assert not LOWER(parse("g (float[B,T,2] x) => (float[B,T,2] logits) { logits = Relu(x) }")).modified
