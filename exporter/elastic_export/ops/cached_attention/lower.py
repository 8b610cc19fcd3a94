"""`elastic::CachedAttention` in standard ops."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from elastic_export.dtypes import of_ir
from elastic_export.graph.values import Inserter, replace_uses, static_shape
from elastic_export.ops.cached_attention import CACHED_ATTENTION
from elastic_export.products import Product

FLOAT, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL


def lower(model: ir.Model, product: Product) -> int:
    """Attention over a cache in standard ops; returns how many nodes there were.

    1. Queries, keys and values get their heads: [B, T, h·hd] -> [B, h, T, hd].
    2. `TensorScatter` writes the new keys and values at `position`: TensorRT's in-place KV cache. Linear: nothing wraps
       round past the end.
    3. One boolean mask for all layers: cache row ≤ position + row of the call. (`nonpad_kv_seqlen` is ignored by
       TensorRT-RTX without an error, so the mask is explicit.)
    4. `Attention` where the product has a fused kernel for it, else MatMul, Softmax, MatMul in float32.
    """
    nodes = [node for node in model.graph if node.op_type == CACHED_ATTENTION.name]
    if nodes:
        insert = Inserter(model.graph, "attention")
        mask = _visible_rows(model, nodes[0], insert)  # 3
        for node in nodes:
            _lower(model.graph, node, mask, insert, product)
    return len(nodes)


def _visible_rows(model: ir.Model, first: ir.Node, insert: Inserter) -> ir.Value:
    """bool [B, 1, T, S]: cache row s is visible to row t of the call."""
    inputs = {value.name: value for value in model.graph.inputs}
    zero, one = insert.constant(np.array(0, np.int64)), insert.constant(np.array(1, np.int64))

    def indices(value: ir.Value, axis: int, symbol: str) -> ir.Value:
        size = insert.op(first, "Shape", [value], INT64, [1], start=axis, end=axis + 1)
        scalar = insert.op(first, "Squeeze", [size, insert.ints(0)], INT64, [])
        return insert.op(first, "Range", [zero, scalar, one], INT64, [symbol])

    start = insert.op(first, "Unsqueeze", [inputs["position"], insert.ints(1)], INT64, ["B", 1])
    last = insert.op(first, "Add", [start, indices(inputs["input_ids"], 1, "T")], INT64, ["B", "T"])
    last = insert.op(first, "Unsqueeze", [last, insert.ints(1, 3)], INT64, ["B", 1, "T", 1])
    # Any layer's cache will do, for all are S rows long; the first node's is computed before every reader.
    rows = indices(CACHED_ATTENTION.operand(first, "key_cache"), 2, "S")
    return insert.op(first, "LessOrEqual", [rows, last], BOOL, ["B", 1, "T", "S"])


def _lower(graph: ir.Graph, node: ir.Node, mask: ir.Value, insert: Inserter, product: Product) -> None:
    operands = [CACHED_ATTENTION.operand(node, name) for name in CACHED_ATTENTION.inputs]
    query, key, value, key_cache, value_cache, position = operands
    y, dtype = node.outputs[0], query.dtype
    _, kv, _, hd = static_shape(key_cache)
    width = static_shape(query)[2]
    assert kv is not None and hd is not None and width is not None and dtype is not None  # noqa: PT018
    q = _split_heads(node, insert, query, width // hd, hd)  # 1
    caches = []
    for new, cache, output in ((key, key_cache, node.outputs[1]), (value, value_cache, node.outputs[2])):
        rows = _split_heads(node, insert, new, kv, hd)
        shape = list(cache.shape or ())
        written = insert.op(node, "TensorScatter", [cache, rows, position], dtype, shape, axis=2, mode="linear")  # 2
        replace_uses(output, written)
        caches.append(written)
    if product.fuses_attention(of_ir(dtype).short, width // hd, hd):  # 4
        scale = 1.0 / math.sqrt(hd)
        heads = insert.op(node, "Attention", [q, *caches, mask], dtype, ["B", width // hd, "T", hd], scale=scale)
    else:
        heads = _explicit_attention(node, insert, q, caches, mask)
    merged = insert.op(node, "Transpose", [heads], dtype, ["B", "T", width // hd, hd], perm=(0, 2, 1, 3))
    result = insert.op(node, "Reshape", [merged, insert.ints(0, 0, width)], dtype, ["B", "T", width])
    replace_uses(y, result)
    graph.remove(node, safe=True)


def _split_heads(node: ir.Node, insert: Inserter, x: ir.Value, heads: int, hd: int) -> ir.Value:
    assert x.dtype is not None
    split = insert.op(node, "Reshape", [x, insert.ints(0, 0, heads, hd)], x.dtype, ["B", "T", heads, hd])
    return insert.op(node, "Transpose", [split], x.dtype, ["B", heads, "T", hd], perm=(0, 2, 1, 3))


def _explicit_attention(
    node: ir.Node, insert: Inserter, q: ir.Value, caches: list[ir.Value], mask: ir.Value
) -> ir.Value:
    """Softmax(q·Kᵀ/√hd masked)·V in float32; the query heads of a KV group are stacked along the token axis."""
    dtype, (_, heads, _, hd), kv = q.dtype, static_shape(q), static_shape(caches[0])[1]
    assert dtype is not None and heads is not None and hd is not None and kv is not None  # noqa: PT018
    group = heads // kv

    def wide(value: ir.Value) -> ir.Value:
        shape = list(value.shape or ())
        return value if dtype == FLOAT else insert.op(node, "Cast", [value], FLOAT, shape, to=int(FLOAT))

    scale = insert.constant(np.array(1.0 / math.sqrt(hd), np.float32))
    scaled = insert.op(node, "Mul", [wide(q), scale], FLOAT, ["B", heads, "T", hd])
    stacked = insert.op(node, "Reshape", [scaled, insert.ints(0, kv, -1, hd)], FLOAT, ["B", kv, f"{group}*T", hd])
    keys = insert.op(node, "Transpose", [wide(caches[0])], FLOAT, ["B", kv, hd, "S"], perm=(0, 1, 3, 2))
    scores = insert.op(node, "MatMul", [stacked, keys], FLOAT, ["B", kv, f"{group}*T", "S"])
    tokens = insert.op(node, "Shape", [q], INT64, [1], start=2, end=3)
    context = insert.op(node, "Shape", [caches[0]], INT64, [1], start=2, end=3)
    apart = insert.op(node, "Concat", [insert.ints(0, heads), tokens, context], INT64, [4], axis=0)
    scores = insert.op(node, "Reshape", [scores, apart], FLOAT, ["B", heads, "T", "S"])
    minus_infinity = insert.constant(np.array(-np.inf, np.float32))
    scores = insert.op(node, "Where", [mask, scores, minus_infinity], FLOAT, ["B", heads, "T", "S"])
    weights = insert.op(node, "Softmax", [scores], FLOAT, ["B", heads, "T", "S"], axis=-1)
    stack = insert.op(node, "Concat", [insert.ints(0, kv, -1), context], INT64, [4], axis=0)
    weights = insert.op(node, "Reshape", [weights, stack], FLOAT, ["B", kv, f"{group}*T", "S"])
    mixed = insert.op(node, "MatMul", [weights, wide(caches[1])], FLOAT, ["B", kv, f"{group}*T", hd])
    split = insert.op(node, "Concat", [insert.ints(0, heads), tokens, insert.ints(hd)], INT64, [4], axis=0)
    result = insert.op(node, "Reshape", [mixed, split], FLOAT, ["B", heads, "T", hd])
    return result if dtype == FLOAT else insert.op(node, "Cast", [result], dtype, ["B", heads, "T", hd], to=int(dtype))
