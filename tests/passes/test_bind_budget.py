"""BindBudget: masks become constants, a copy for each reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from elastic_export.graph.facts import facts_of
from elastic_export.passes.bind_budget import BindBudget
from elastic_runtime.errors import InternalError

BEFORE = """g (float[B,3] x, float[3] mask.hidden) => (float[B,3] logits) <float[B,3] a> {
  a = Mul(x, mask.hidden)
  logits = elastic.MaskedRMSNorm <epsilon: float = 0.5> (a, mask.hidden, mask.hidden)
}"""
AFTER = """g (float[B,3] x) => (float[B,3] logits)
<float[B,3] a, float[3] m0 = {1, 1, 0}, float[3] m1 = {1, 1, 0}, float[3] m2 = {1, 1, 0}> {
  a = Mul(x, m0)
  logits = elastic.MaskedRMSNorm <epsilon: float = 0.5> (a, m1, m2)
}"""
MASK = {"hidden": np.array([1, 1, 0], np.float64)}


def test_before_and_after(parse: Any, canonical: Any, evaluate: Any, feeds_of: Any) -> None:
    model = parse(BEFORE)
    feeds = feeds_of(model, B=2) | {"mask.hidden": MASK["hidden"].astype(np.float32)}
    expected = evaluate(model, feeds)
    assert BindBudget(MASK)(model).modified
    assert canonical(model) == canonical(parse(AFTER))
    np.testing.assert_array_equal(evaluate(model, feeds)["logits"], expected["logits"])
    assert facts_of(model).masks == []


def test_every_reader_has_its_own_copy(parse: Callable[[str], ir.Model]) -> None:
    model = parse(BEFORE)
    BindBudget(MASK)(model)
    assert [len(value.uses()) for value in model.graph.initializers.values()] == [1, 1, 1]
    assert {value.dtype for value in model.graph.initializers.values()} == {ir.DataType.FLOAT}


@pytest.mark.parametrize(
    ("masks", "found"),
    [
        ({}, r"mask\.hidden"),
        ({"hidden": np.ones(4)}, r"mask\.hidden"),
        (MASK | {"ffn.0": np.ones(4)}, r"mask\.ffn\.0"),
    ],
)
def test_other_masks_than_the_graph_takes_are_an_error(masks: Any, found: str, parse: Any) -> None:
    text = rf"^masks of the budget: expected those of the parent graph, found {found}\."
    with pytest.raises(InternalError, match=text):
        BindBudget(masks)(parse(BEFORE))


def test_it_must_not_fire_twice(parse: Any) -> None:
    model = parse(BEFORE)
    BindBudget(MASK)(model)
    with pytest.raises(InternalError, match=r"found mask\.hidden"):
        BindBudget(MASK)(model)
    with pytest.raises(InternalError, match=r"found no masks left"):
        BindBudget({})(model)
