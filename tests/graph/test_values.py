"""Small edits that passes share."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from elastic_export.graph.values import Inserter, constant_of, fixed_dim, replace_uses, static_shape

TEXT = """g (float[B,3] x) => (float[B,3] logits) <float[3] c = {1, 2, 3}, float[B,3] y> {
  y = Mul(x, c)
  logits = Relu(y)
}"""


def test_constants_and_shapes(parse: Any) -> None:
    model = parse(TEXT)
    [constant] = model.graph.initializers.values()
    np.testing.assert_array_equal(constant_of(constant), [1, 2, 3])
    assert constant_of(model.graph.inputs[0]) is None
    assert constant_of(None) is None
    assert static_shape(model.graph.inputs[0]) == (None, 3)
    assert fixed_dim(model.graph.inputs[0], -1) == 3
    with pytest.raises(AssertionError):
        fixed_dim(model.graph.inputs[0], 0)


def test_equal_constants_are_shared_and_others_are_not(parse: Any) -> None:
    model = parse(TEXT)
    insert = Inserter(model.graph, "new")
    assert insert.ints(1, 2) is insert.ints(1, 2)
    assert insert.ints(1) is not insert.constant(np.array(1, np.int64))
    assert insert.constant(np.zeros(2, np.float32)) is not insert.constant(np.zeros(1, np.int64))
    assert sum(str(name).startswith("new.") for name in model.graph.initializers) == 5


def test_an_output_keeps_its_name_when_it_is_replaced(parse: Any, evaluate: Any) -> None:
    model = parse(TEXT)
    first, last = list(model.graph)
    replace_uses(last.outputs[0], first.outputs[0])
    model.graph.remove(last, safe=True)
    assert [value.name for value in model.graph.outputs] == ["logits"]
    x = np.array([[-1, 1, 1]], np.float32)
    np.testing.assert_array_equal(evaluate(model, {"x": x})["logits"], [[-1, 2, 3]])
    assert isinstance(model, ir.Model)
