"""QuantiseLinear: products with weights as the checkpoint has them become products with int8 ones.

ONNX text spells a bfloat16 by its bits: 15360 is 2^-7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elastic_export.graph.facts import Form, facts_of
from elastic_export.graph.values import set_ints
from elastic_export.layers.eight_bits import EightBitMatrix, EightBits
from elastic_export.passes.quantise_linear import QuantiseLinear
from elastic_runtime.errors import InternalError

Array = np.ndarray[Any, Any]

ONE = EightBits((EightBitMatrix("w", (("w1", (6, 4)),), True),), ())
BEFORE = """g (bfloat16["B*T",4] x, bfloat16[6,4] w1, bfloat16[2,4] w2) => (bfloat16["B*T",6] y, bfloat16["B*T",2] z)
{ y = Gemm <transB: int = 1> (x, w1)
  z = Gemm <transB: int = 1> (x, w2) }"""
AFTER = """g (bfloat16["B*T",4] x, int8[4,6] w.int8, float[6] w.scale, bfloat16[2,4] w2)
  => (bfloat16["B*T",6] y, bfloat16["B*T",2] z)
<bfloat16 u = {15360}, bfloat16[4,6] d, bfloat16["B*T",6] p, float["B*T",6] c, float["B*T",6] m> {
  d = DequantizeLinear(w.int8, u)
  p = Gemm(x, d)
  c = Cast <to: int = 1> (p)
  m = Mul(c, w.scale)
  y = Cast <to: int = 16> (m)
  z = Gemm <transB: int = 1> (x, w2)
}"""
ON_THE_WEIGHT = """g (bfloat16["B*T",4] x, int8[4,6] w.int8, float[6] w.scale, bfloat16[2,4] w2)
  => (bfloat16["B*T",6] y, bfloat16["B*T",2] z)
<float u = {0.0078125}, float[6] s, float[4,6] d, bfloat16[4,6] c> {
  s = Mul(w.scale, u)
  d = DequantizeLinear <axis: int = 1> (w.int8, s)
  c = Cast <to: int = 16> (d)
  y = Gemm(x, c)
  z = Gemm <transB: int = 1> (x, w2)
}"""


@pytest.mark.parametrize(
    ("scale_on", "after"), [("product", AFTER), ("weight", ON_THE_WEIGHT)], ids=["product", "weight"]
)
def test_before_and_after(parse: Any, canonical: Any, scale_on: Any, after: str) -> None:
    """The one that is in eight bits, and not the odd one beside it."""
    model = parse(BEFORE)
    passed = QuantiseLinear(ONE, scale_on=scale_on)
    assert passed(model).modified
    assert canonical(model) == canonical(parse(after))
    found = {name: (weight.form, weight.shape) for name, weight in facts_of(model).weights.items()}
    assert found == {
        "w2": (Form.WHOLE, (2, 4)),
        "w.int8": (Form.EIGHT_BITS_TRANSPOSED, (4, 6)),
        "w.scale": (Form.SCALES, (6,)),
    }
    assert {weight.parts[0].tensor for name, weight in facts_of(model).weights.items() if name != "w2"} == {"w1"}


LOGITS = """g (bfloat16["B*T",4] x, bfloat16[6,4] w1, int64[3] shape) => (float[B,T,6] logits)
<bfloat16["B*T",6] p, bfloat16[B,T,6] r> {
  p = Gemm <transB: int = 1> (x, w1)
  r = Reshape(p, shape)
  logits = Cast <to: int = 1> (r)
}"""
LOGITS_AFTER = """g (bfloat16["B*T",4] x, int8[4,6] w.int8, float[6] w.scale, int64[3] shape) => (float[B,T,6] logits)
<bfloat16 u = {15360}, bfloat16[4,6] d, bfloat16["B*T",6] p, float["B*T",6] c, float["B*T",6] m> {
  d = DequantizeLinear(w.int8, u)
  p = Gemm(x, d)
  c = Cast <to: int = 1> (p)
  m = Mul(c, w.scale)
  logits = Reshape(m, shape)
}"""


def test_logits_are_not_rounded_behind_their_scale(parse: Any, canonical: Any) -> None:
    model = parse(LOGITS)
    assert QuantiseLinear(ONE)(model).modified
    assert canonical(model) == canonical(parse(LOGITS_AFTER))


JOINED = EightBits((EightBitMatrix("w", (("wq", (4, 3)), ("wk", (2, 3)), ("wv", (2, 3))), True),), ())
#: Keys before queries: the order of the graph is not that of the file.
THREE = """g (float["B*T",3] x, float[2,3] wk, float[4,3] wq, float[2,3] wv)
  => (float["B*T",2] k, float["B*T",4] q, float["B*T",2] v)
{ k = Gemm <transB: int = 1> (x, wk)
  q = Gemm <transB: int = 1> (x, wq)
  v = Gemm <transB: int = 1> (x, wv) }"""


def test_products_of_one_input_are_one(parse: Any, evaluate: Any) -> None:
    rng, model = np.random.default_rng(0), parse(THREE)
    alone = tuple(EightBitMatrix(name, ((name, shape),), True) for name, shape in JOINED.matrices[0].tensors)
    with pytest.raises(InternalError, match="in eight bits: expected activations of their own, found shared ones"):
        QuantiseLinear(EightBits(alone, ()))(parse(THREE))
    x = rng.normal(size=(5, 3)).astype(np.float32)
    values, scales = rng.integers(-127, 128, (3, 8), np.int8), rng.uniform(1, 2, 8).astype(np.float32)
    assert QuantiseLinear(JOINED)(model).modified
    assert [node.op_type for node in model.graph] == ["DequantizeLinear", "Gemm", "Cast", "Mul", "Cast", "Split"]
    assert [p.tensor for p in facts_of(model).weights["w.int8"].parts] == ["wq", "wk", "wv"]
    found = evaluate(model, {"x": x, "w.int8": values, "w.scale": scales})
    expected = x @ (values / 128 * scales)
    for name, rows in {"q": slice(0, 4), "k": slice(4, 6), "v": slice(6, 8)}.items():
        np.testing.assert_allclose(found[name], expected[:, rows], rtol=1e-5)


TABLE = """g (int64[B,T] ids, float[7,4] w1) => (float[B,T,4] y) { y = Gather(w1, ids) }"""


def test_a_table_gives_its_rows_with_their_scales(parse: Any, evaluate: Any) -> None:
    rng, model = np.random.default_rng(0), parse(TABLE)
    assert QuantiseLinear(EightBits((EightBitMatrix("w", (("w1", (7, 4)),), False),), ()))(model).modified
    values, scales = rng.integers(-127, 128, (7, 4), np.int8), rng.uniform(1, 2, 7).astype(np.float32)
    ids = np.array([[3, 0], [6, 3]])
    found = evaluate(model, {"ids": ids, "w.int8": values, "w.scale": scales})["y"]
    np.testing.assert_array_equal(found, (values / np.float32(128) * scales[:, None])[ids])
    assert facts_of(model).weights["w.int8"].form == Form.EIGHT_BITS


def test_it_must_not_fire_on_a_matrix_that_is_not_in_eight_bits(parse: Any, canonical: Any) -> None:
    model = parse(BEFORE)
    assert not QuantiseLinear(EightBits((), ("w1", "w2")))(model).modified
    assert canonical(model) == canonical(parse(BEFORE))


def test_every_weight_has_a_unit_of_its_own(parse: Any) -> None:
    """One constant for several would be the smaller file, and was seen to crash a compiler."""
    both = EightBits(tuple(EightBitMatrix(n, ((n, s),), True) for n, s in (("w1", (6, 4)), ("w2", (2, 6)))), ())
    model = parse(
        """g (float["B*T",4] x, float[6,4] w1, float[2,6] w2) => (float["B*T",2] z) <float["B*T",6] y>
        { y = Gemm <transB: int = 1> (x, w1)
          z = Gemm <transB: int = 1> (y, w2) }"""
    )
    QuantiseLinear(both)(model)
    units = [node.inputs[1] for node in model.graph if node.op_type == "DequantizeLinear"]
    assert len(set(units)) == 2


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{ y = Gemm (x, w1) }", r"Gemm\): expected Gemm\(x, W, transB=1\) or Gather"),
        ("<float[4,6] t> { t = Transpose(w1)\n y = MatMul(x, t) }", r"Transpose\): expected Gemm\(x, W, transB=1\)"),
    ],
)
def test_a_weight_that_is_read_otherwise_is_named(parse: Any, body: str, text: str) -> None:
    shape = "4,6" if "Gemm" in body else "6,4"
    model = parse(f'g (float["B*T",4] x, float[{shape}] w1) => (float["B*T",6] y) {body}')
    if "Gemm" in body:
        node = next(iter(model.graph))
        set_ints(node, transB=0)
    with pytest.raises(InternalError, match=text):
        QuantiseLinear(ONE)(model)
