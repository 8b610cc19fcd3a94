"""Each standard rule on a graph of one node: which zeros it passes on, which channels it asks for."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from elastic_export.graph.lattices import Liveness
from elastic_export.graph.standard_rules import Unary
from elastic_export.passes.narrow.analysis import analyse, known_zeros
from elastic_runtime.errors import InternalError


def zeros(model: ir.Model) -> list[list[int] | None]:
    """Known zeros of the logits, by axis."""
    return [
        None if axis is None else axis.astype(int).tolist() for axis in known_zeros(model).zero(model.graph.outputs[0])
    ]


def needs(model: ir.Model, name: str) -> list[list[int] | None]:
    """Needs of an input or constant, by axis."""
    live = analyse(model)
    value = next(v for v in (*model.graph.inputs, *model.graph.initializers.values()) if v.name == name)
    return [None if axis is None else axis.astype(int).tolist() for axis in live.need(value)]


def one(op: str, constants: str = "", logits: str = "float[B,3]", inputs: str = "float[B,3] x") -> str:
    return f"g ({inputs}) => ({logits} logits) <{constants}> {{ logits = {op} }}"


@pytest.mark.parametrize(
    ("op", "constants", "expected"),
    [
        ("Mul(x, c)", "float[3] c = {0, 1, 0}", [None, [1, 0, 1]]),
        ("Add(x, c)", "float[3] c = {0, 1, 0}", [None, [0, 0, 0]]),  # x + 0 is x
        ("Add(d, c)", "float[3] c = {0, 1, 0}, float[2,3] d = {0, 0, 0, 1, 1, 0}", [[0, 0], [0, 0, 1]]),
        ("Mul(d, c)", "float[3] c = {0, 1, 0}, float[2,3] d = {0, 0, 0, 1, 1, 0}", [[1, 0], [1, 0, 1]]),
        ("Mul(x, c)", "float[1] c = {0}", [None, [1, 1, 1]]),
        ("Mul(x, c)", "float c = {0}", [None, [0, 0, 0]]),
        ("Add(d, c)", "float[1] c = {0}, float[2,3] d = {0, 0, 0, 1, 1, 0}", [[1, 0], [0, 0, 1]]),
        ("Add(d, c)", "float[1] c = {2}, float[2,3] d = {0, 0, 0, 1, 1, 0}", [[0, 0], [0, 0, 0]]),
        ("Relu(d)", "float[2,3] d = {0, 0, 0, 1, 1, 0}", [[1, 0], [0, 0, 1]]),
        ("Transpose <perm: ints = [1, 0]> (d)", "float[2,3] d = {0, 0, 0, 1, 1, 0}", [[0, 0, 1], [1, 0]]),
        ("Transpose (d)", "float[2,3] d = {0, 0, 0, 1, 1, 0}", [[0, 0, 1], [1, 0]]),
        ("MatMul(x, m)", "float[3,2] m = {1, 0, 1, 0, 1, 0}", [None, [0, 1]]),
        ("Gather(d, i)", "float[2,3] d = {0, 0, 0, 1, 1, 0}, int64[4] i = {0, 1, 1, 0}", [[0] * 4, [0, 0, 1]]),
    ],
)
def test_zeros_forward(op: str, constants: str, expected: list[list[int] | None], parse: Any) -> None:
    dims = ",".join("B" if axis is None else str(len(axis)) for axis in expected)
    assert zeros(parse(one(op, constants, f"float[{dims}]"))) == expected


def test_a_matmul_over_nothing_but_zeros_is_zero(parse: Any) -> None:
    """Every product has a zero on one side: channel 0 in the matrix, 1 and 2 in x."""
    model = parse("""g (float[B,3] x) => (float[B,2] logits)
<float[3] c = {1, 0, 0}, float[B,3] y, float[3,2] m = {0, 0, 1, 1, 1, 1}> { y = Mul(x, c)
 logits = MatMul(y, m) }""")
    assert zeros(model) == [None, [1, 1]]


def test_unary_without_f_of_zero_knows_nothing(parse: Any) -> None:
    """exp(0) = 1: the rule of such an op must not pass zeros on."""
    model = parse(one("Exp(d)", "float[2,3] d = {0, 0, 0, 1, 1, 0}", "float[2,3]"))
    [node], live = model.graph, Liveness()
    Unary(keeps_zero=False).zeros(node, live)
    assert not any(axis is not None and axis.any() for axis in live.zero(node.outputs[0]))
    Unary(keeps_zero=True).zeros(node, live)
    assert any(axis is not None and axis.any() for axis in live.zero(node.outputs[0]))


def test_matmul_asks_for_nonzero_channels_on_both_sides(parse: Any) -> None:
    model = parse("""g (float[B,4] x, float[2,4] w) => (float[B,2] logits)
<float[4] c = {1, 0, 1, 0}, float[B,4] y, float[4,2] t> {
  y = Mul(x, c)
  t = Transpose <perm: ints = [1, 0]> (w)
  logits = MatMul(y, t)
}""")
    assert needs(model, "w") == [[1, 1], [1, 0, 1, 0]]
    assert needs(model, "x") == [None, [1, 0, 1, 0]]
    assert needs(model, "c") == [[1, 0, 1, 0]]


def test_matmul_keeps_a_channel_that_one_side_needs_elsewhere(parse: Any) -> None:
    """Channel 1 of y is zero, but the sum beside reads it whole: both sides of the product keep it."""
    model = parse("""g (float[B,3] x, float[3,3] m) => (float[B,3] logits)
<float[3] c = {1, 0, 1}, float[B,3] y, float[B,3] p> {
  y = Mul(x, c)
  p = MatMul(y, m)
  logits = Add(p, y)
}""")
    assert needs(model, "m") == [[1, 1, 1], [1, 1, 1]]


def test_gather_asks_for_every_row(parse: Any) -> None:
    model = parse("""g (int64[B,T] i, float[4,3] w) => (float[B,T,2] logits)
<float[3] c = {1, 0, 1}, float[B,T,3] e, float[B,T,3] y, float[3,2] m = {1, 1, 1, 1, 1, 1}> {
  e = Gather(w, i)
  y = Mul(e, c)
  logits = MatMul(y, m)
}""")
    assert needs(model, "w") == [[1, 1, 1, 1], [1, 0, 1]]


def test_a_broadcast_operand_keeps_its_one_channel(parse: Any) -> None:
    model = parse(one("Mul(x, w)", inputs="float[B,3] x, float[1] w"))
    assert needs(model, "w") == [[1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            one("MatMul(x, y)", "", "float[B,3,5]", "float[B,3,4] x, float[B,4,5] y"),
            r"\(MatMul\): expected a matrix of fixed shape on the right, found \[B,4,5\]",
        ),
        (
            one("Gather <axis: int = 1> (x, i)", "", "float[B,2]", "float[B,3] x, int64[2] i"),
            r"\(Gather\): expected a gather of rows \(axis 0\), found axis 1",
        ),
    ],
)
def test_forms_without_a_rule_are_an_error(text: str, message: str, parse: Any) -> None:
    with pytest.raises(InternalError, match=message):
        known_zeros(parse(text))
