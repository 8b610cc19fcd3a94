"""What `elastic::CachedAttention` means, in standard ONNX ops: the function body that every emitted file carries.

    K, V   = the caches, with the new rows written at `position`
    y_t    = softmax(scale · q_t·Kᵀ over the rows s ≤ position + t) · V,   query head h reads KV head ⌊h/(q/kv)⌋

`TensorScatter` on a cache that is an input of the graph becomes TensorRT's in-place KV cache; linear: nothing wraps
round past the end. Which rows a token sees is an explicit boolean mask, cache row ≤ position + row of the call, for
TensorRT-RTX ignores `nonpad_kv_seqlen` without an error.

There are two forms of what follows, and a file holds one of them. `Attention` is the one where the product that the
file is for has a fused kernel for the shape; it leaves the softmax's precision to its reader. The other one is spelled
out in float32, MatMul, Softmax, MatMul, with the query heads of a KV group stacked along the token axis: keys and
values are not copied for each of them.

Every size is an attribute or the shape of an operand. The mask is made again in each layer, which costs less than a
read of the cache does: an input that only one reader of the op needs would be a price for all of them.
"""

from __future__ import annotations

import onnx
import onnx.parser

from elastic_export.ops.contract import load_contract

_BODY = """
<domain: "elastic", opset_import: ["": {opset}]>
CachedAttention <{attributes}> ({inputs}) => ({outputs})
{{
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  v0 = Constant <value_ints = [0]> ()
  v1 = Constant <value_ints = [1]> ()
  last = Constant <value_ints = [-1]> ()
  copy_2 = Constant <value_ints = [0, 0]> ()
  q_ = Constant <value_int: int = @num_heads> ()
  kv_ = Constant <value_int: int = @num_key_value_heads> ()
  hd_ = Constant <value_int: int = @head_dim> ()
  Q = Unsqueeze (q_, v0)
  KV = Unsqueeze (kv_, v0)
  HD = Unsqueeze (hd_, v0)

  kv_shape = Concat <axis = 0> (copy_2, KV, HD)
  key_split = Reshape (key, kv_shape)
  value_split = Reshape (value, kv_shape)
  key_rows = Transpose <perm = [0, 2, 1, 3]> (key_split)
  value_rows = Transpose <perm = [0, 2, 1, 3]> (value_split)
  key_cache_out = TensorScatter <axis = 2, mode = "linear"> (key_cache, key_rows, position)
  value_cache_out = TensorScatter <axis = 2, mode = "linear"> (value_cache, value_rows, position)

  T = Shape <start = 1, end = 2> (query)
  S = Shape <start = 2, end = 3> (key_cache)
  t_ = Squeeze (T, v0)
  s_ = Squeeze (S, v0)
  tokens = Range (zero, t_, one)
  rows = Range (zero, s_, one)
  first = Unsqueeze (position, v1)
  newest = Add (first, tokens)
  mask_axes = Constant <value_ints = [1, 3]> ()
  newest_ = Unsqueeze (newest, mask_axes)
  visible = LessOrEqual (rows, newest_)

  q_shape = Concat <axis = 0> (copy_2, Q, HD)
  query_split = Reshape (query, q_shape)
  q = Transpose <perm = [0, 2, 1, 3]> (query_split)
{attend}
  y_split = Transpose <perm = [0, 2, 1, 3]> (y_heads)
  y_shape = Concat <axis = 0> (copy_2, last)
  y = Reshape (y_split, y_shape)
}}
"""

_FUSED = """
  y_heads = Attention <scale: float = @scale> (q, key_cache_out, value_cache_out, visible)
"""

_EXPLICIT = """
  copy_1 = Constant <value_ints = [0]> ()
  scale_ = Constant <value_float: float = @scale> ()
  q_f = Cast <to = 1> (q)
  k_f = Cast <to = 1> (key_cache_out)
  v_f = Cast <to = 1> (value_cache_out)
  q_scaled = Mul (q_f, scale_)
  stack = Concat <axis = 0> (copy_1, KV, last, HD)
  q_stacked = Reshape (q_scaled, stack)
  k_t = Transpose <perm = [0, 1, 3, 2]> (k_f)
  scores_stacked = MatMul (q_stacked, k_t)
  by_head = Concat <axis = 0> (copy_1, Q, T, S)
  scores = Reshape (scores_stacked, by_head)
  hidden = Constant <value_float = -inf> ()
  scores_seen = Where (visible, scores, hidden)
  weights = Softmax <axis = -1> (scores_seen)
  by_group = Concat <axis = 0> (copy_1, KV, last, S)
  weights_stacked = Reshape (weights, by_group)
  mixed = MatMul (weights_stacked, v_f)
  apart = Concat <axis = 0> (copy_1, Q, T, HD)
  y_f = Reshape (mixed, apart)
  y_heads = CastLike (y_f, query)
"""


def function(opset: int, *, fused: bool) -> onnx.FunctionProto:
    """The body; operands and attributes are those of the contract.

    Args:
        opset: of the standard ops.
        fused: whether it attends by one `Attention`, or by matrix products.
    """
    contract = load_contract("cached_attention")
    return onnx.parser.parse_function(
        _BODY.format(
            opset=opset,
            attributes=", ".join(contract.attributes),
            inputs=", ".join(operand.name for operand in contract.inputs),
            outputs=", ".join(operand.name for operand in contract.outputs),
            attend=(_FUSED if fused else _EXPLICIT).strip("\n"),
        )
    )
