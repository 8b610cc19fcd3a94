"""Lowering CachedAttention: standard ops over an in-place cache, fused or explicit, one visibility mask for all."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from elastic_export.dtypes import of_ir
from elastic_export.ops.cached_attention import CACHED_ATTENTION
from elastic_export.passes.lower_ops import LowerOp
from elastic_export.products import TENSORRT, TENSORRT_RTX
from elastic_runtime.errors import InternalError

LOWER = LowerOp(CACHED_ATTENTION, TENSORRT_RTX)
BF16, FP16, FLOAT = ir.DataType.BFLOAT16, ir.DataType.FLOAT16, ir.DataType.FLOAT
LAYER = """  y{i}, key_cache_out.{i}, value_cache_out.{i} =
    elastic.CachedAttention(q, k, v, key_cache.{i}, value_cache.{i}, position)
"""


def text(layers: int = 1, heads: int = 4, kv: int = 2, hd: int = 4, dtype: str = "float") -> str:
    caches = [f"{dtype}[B,{kv},S,{hd}] {kind}_cache{{}}.{i}" for i in range(layers) for kind in ("key", "value")]
    width, inputs = heads * hd, ", ".join(c.format("") for c in caches)
    return f"""g (int64[B,T] input_ids, int64[B] position, {dtype}[B,T,{width}] q, {dtype}[B,T,{kv * hd}] k,
 {dtype}[B,T,{kv * hd}] v, {inputs}) => ({dtype}[B,T,{width}] logits, {", ".join(c.format("_out") for c in caches)})
<{", ".join(f"{dtype}[B,T,{width}] y{i}" for i in range(layers))}> {{
{"".join(LAYER.format(i=i) for i in range(layers))}  logits = Relu(y0)
}}"""


@pytest.mark.parametrize(("heads", "kv"), [(4, 2), (3, 3), (5, 1)])
def test_numbers_before_and_after(heads: int, kv: int, parse: Any, evaluate: Any, feeds_of: Any) -> None:
    model = parse(text(heads=heads, kv=kv))
    feeds = feeds_of(model, B=2, T=3, S=9) | {"position": np.array([0, 5])}
    expected = evaluate(model, feeds)
    assert LOWER(model).modified
    found = evaluate(model, feeds)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_explicit_form(parse: Any) -> None:
    """Node for node: heads split, caches written, scores in float32, hidden rows at minus infinity, heads merged."""
    model = parse(text())
    LOWER(model)
    assert [node.op_type for node in model.graph] == [
        *("Unsqueeze", "Shape", "Squeeze", "Range", "Add", "Unsqueeze", "Shape", "Squeeze", "Range", "LessOrEqual"),
        *("Reshape", "Transpose"), *("Reshape", "Transpose", "TensorScatter") * 2,
        *("Mul", "Reshape", "Transpose", "MatMul", "Shape", "Shape", "Concat", "Reshape", "Where", "Softmax"),
        *("Concat", "Reshape", "MatMul", "Concat", "Reshape", "Transpose", "Reshape"), "Relu",
    ]  # fmt: skip


def test_fused_form(parse: Any) -> None:
    model = parse(text(heads=8, kv=2, hd=16, dtype="bfloat16"))
    LOWER(model)
    [attention] = [node for node in model.graph if node.op_type == "Attention"]
    assert attention.attributes["scale"].as_float() == pytest.approx(0.25)
    mask = attention.inputs[3]
    assert mask is not None
    assert (mask.dtype, [str(d) for d in mask.shape or ()]) == (ir.DataType.BOOL, ["B", "1", "T", "S"])
    assert not [node for node in model.graph if node.op_type in ("Softmax", "Where", "Cast")]


def test_narrow_explicit_attention_computes_in_float32(parse: Any) -> None:
    model = parse(text(heads=2, kv=2, hd=12, dtype="bfloat16"))
    LOWER(model)
    for node in model.graph:
        if node.op_type in ("MatMul", "Softmax"):
            assert {value.dtype for value in (*node.inputs, *node.outputs) if value is not None} == {FLOAT}
    assert model.graph.outputs[0].dtype == BF16


def test_layers_share_one_mask(parse: Any) -> None:
    model = parse(text(layers=3))
    LOWER(model)
    count = Counter(node.op_type for node in model.graph)
    assert (count["LessOrEqual"], count["Range"], count["TensorScatter"], count["Softmax"]) == (1, 2, 6, 3)


@pytest.mark.parametrize(
    ("dtype", "heads", "head_dim", "fused"),
    [
        (BF16, 40, 128, True), (FP16, 8, 64, True), (FLOAT, 40, 128, False), (BF16, 40, 20, False),
        (BF16, 40, 8, False), (BF16, 40, 264, False), (BF16, 2, 128, False),
    ],
)  # fmt: skip
def test_fused_kernels_exist_for_narrow_types_and_even_sizes(
    dtype: ir.DataType, heads: int, head_dim: int, fused: bool
) -> None:
    assert TENSORRT_RTX.fuses_attention(of_ir(dtype).short, heads, head_dim) is fused


def test_a_product_without_a_fused_kernel_gets_matrix_products(parse: Any) -> None:
    model = parse(text(hd=128, dtype="bfloat16"))
    LowerOp(CACHED_ATTENTION, TENSORRT)(model)
    ops = Counter(node.op_type for node in model.graph)
    assert (ops["Attention"], ops["Softmax"], ops["MatMul"]) == (0, 1, 2)


def test_it_must_not_fire_without_a_cache(parse: Any) -> None:
    model = parse("g (float[B,T,4] x) => (float[B,T,4] logits) { logits = Softmax(x) }")
    assert not LOWER(model).modified


def test_one_left_is_an_error(parse: Any) -> None:
    with pytest.raises(InternalError, match=r"^CachedAttention: expected none after lowering, found one\."):
        LOWER.ensures(parse(text()))
