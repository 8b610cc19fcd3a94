"""What `elastic::Mamba2Mixer` means, in standard ONNX ops: the function body that every emitted file carries.

The chunk form of the selective scan (Dao and Gu 2024, arXiv 2405.21060, section 6), see also the per-step form in
`equations.py`. Tokens are cut into chunks of L = min(T, 64); inside a chunk everything is matrix products,
between chunks a small triangular product passes the states. So prefill is parallel in T, memory grows with T·64
instead of T², and T = 1 costs one step.

    a_i   = dt_i·A,  cum_i = Σ_{j≤i} a_j   W_ji = exp(Σ_{j<m≤i} a_m) · dt_j · (B_j·C_i) for j ≤ i, else 0
    y_i   = Σ_j x_j W_ji + exp(cum_i) S_in C_i + D x_i
    U_c   = Σ_j exp(Σ_{m>j} a_m) dt_j x_j ⊗ B_j          (what chunk c adds to the state at its end)
    S_in of chunk c = exp(e_c) S_0 + Σ_{c'<c} exp(Σ_{c'<m<c} t_m) U_c',   t_m = Σ_i a_i of chunk m, e_c = Σ_{m<c} t_m

Every decay is the exponential of a sum of its own steps, never of a difference of running sums: after a large step such
a difference has lost the small ones (a state 10 % off was seen), and it can turn positive.

Axes are [batch, group, head of the group, chunk, head dim, token of the chunk] throughout, with an axis of one where a
value does not depend on it: states are never transposed or copied, B and C are broadcast over the heads of their group
by the matrix products.

Written for two readers. TensorRT-RTX wants one body an op, no optional inputs, and the chunk count as (T + 63) / 64
with a constant divisor: with the dynamic L it assumes T chunks and takes gigabytes of scratch. Every Reshape, Squeeze,
Unsqueeze and implicit change of rank of a dynamic shape becomes about nine scalar operations on each of its dimensions,
and its copy propagation (1.7.1) is quadratic in how often the chunk count and L are used, over all the mixers of a
model. So chunked tensors get their axes of one from the reshape that makes the chunks, and Transpose, which costs none,
moves them. What is unsqueezed are numbers of tokens, rows and chunks.

onnxruntime's CPU wants float32. Softplus is max(s, 0) + 2·atanh(u / (2 + u)) with u = exp(-|s|), which is log1p(u):
log(1 + u) would lose dt below 1e-4.
"""

from __future__ import annotations

import onnx
import onnx.parser

from elastic_export.ops.contract import load_contract

CHUNK = 64

_BODY = """
<domain: "elastic", opset_import: ["": {opset}]>
Mamba2Mixer <n_groups, head_dim, state_size, epsilon> ({inputs}) => ({outputs})
{{
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  f0 = Constant <value_float = 0.0> ()
  f2 = Constant <value_float = 2.0> ()
  v0 = Constant <value_ints = [0]> ()
  v1 = Constant <value_ints = [1]> ()
  v2 = Constant <value_ints = [2]> ()
  v3 = Constant <value_ints = [3]> ()
  v4 = Constant <value_ints = [4]> ()
  v5 = Constant <value_ints = [5]> ()
  last = Constant <value_ints = [-1]> ()
  axis_4 = Constant <value_int = 4> ()
  axis_5 = Constant <value_int = 5> ()
  g_ = Constant <value_int: int = @n_groups> ()
  p_ = Constant <value_int: int = @head_dim> ()
  n_ = Constant <value_int: int = @state_size> ()
  G = Unsqueeze (g_, v0)
  P = Unsqueeze (p_, v0)
  N = Unsqueeze (n_, v0)
  H = Shape (A_log)
  R = Div (H, G)
  di = Mul (H, P)
  gn = Mul (G, N)
  di_gn = Add (di, gn)
  dc = Add (di_gn, gn)

  T = Shape <start = 1, end = 2> (projected)
  L_max = Constant <value_ints = [{chunk}]> ()
  round_up = Constant <value_ints = [{chunk_less_one}]> ()
  L = Min (T, L_max)
  T_up = Add (T, round_up)
  chunks = Div (T_up, L_max)
  T_padded = Mul (chunks, L)
  padding = Sub (T_padded, T)

  z_xBC_dt = Concat <axis = 0> (di, dc, H)
  z_raw, xBC_raw, dt_raw = Split <axis = 2> (projected, z_xBC_dt)
  length_ = Unsqueeze (length, v1)

  window_real = Concat <axis = 1> (conv_state, xBC_raw)
  K_less_one = Shape <start = 1, end = 2> (conv_state)
  k_ = Squeeze (K_less_one, v0)
  taps = Range (zero, k_, one)
  state_rows = Add (length_, taps)
  state_index = Unsqueeze (state_rows, v2)
  conv_state_out = GatherND <batch_dims = 1> (window_real, state_index)

  pads_front = Constant <value_ints = [0, 0, 0, 0]> ()
  pads = Concat <axis = 0> (pads_front, padding, v0)
  window = Pad (window_real, pads)
  weight_t = Transpose <perm = [2, 1, 0]> (conv_weight)
  weight_f = Cast <to = 1> (weight_t)
  conv_0 = Cast <to = 1> (conv_bias)
  K = Shape <start = 2, end = 3> (conv_weight)
  K_ = Squeeze (K, v0)
  tap_numbers = Range (zero, K_, one)
  last_row = Squeeze (T_padded, v0)
  first_rows = Range (zero, last_row, one)
  first_rows_ = Unsqueeze (first_rows, v1)
  window_rows = Add (first_rows_, tap_numbers)
  tap_inputs = Gather <axis = 1> (window, window_rows)
  tap_inputs_f = Cast <to = 1> (tap_inputs)
  tap_weights = Squeeze (weight_f, v1)
  tap_terms = Mul (tap_inputs_f, tap_weights)
  conv_sum = ReduceSum <keepdims = 0> (tap_terms, v2)
  conv_out = Add (conv_sum, conv_0)
  conv_gate = Sigmoid (conv_out)
  xBC = Mul (conv_out, conv_gate)

  dt_f = Cast <to = 1> (dt_raw)
  bias_f = Cast <to = 1> (dt_bias)
  s = Add (dt_f, bias_f)
  s_abs = Abs (s)
  s_neg = Neg (s_abs)
  u = Exp (s_neg)
  u_2 = Add (u, f2)
  ratio = Div (u, u_2)
  half = Atanh (ratio)
  log1p = Mul (half, f2)
  s_relu = Relu (s)
  softplus = Add (s_relu, log1p)
  dt_min = Constant <value_float: float = @time_step_min> ()
  dt_max = Constant <value_float: float = @time_step_max> ()
  dt_clamped = Clip (softplus, dt_min, dt_max)
  t_ = Squeeze (T, v0)
  rows = Range (zero, t_, one)
  rows_axes = Constant <value_ints = [0, 2]> ()
  rows_ = Unsqueeze (rows, rows_axes)
  length_axes = Constant <value_ints = [1, 2]> ()
  length_rows = Unsqueeze (length, length_axes)
  valid = Less (rows_, length_rows)
  dt_real = Where (valid, dt_clamped, f0)
  dt_padded = Pad (dt_real, pads, f0)

  x_B_C = Concat <axis = 0> (di, gn, gn)
  x_flat, B_flat, C_flat = Split <axis = 2> (xBC, x_B_C)
  x_shape = Concat <axis = 0> (v0, chunks, L, G, R, P)
  x_rows = Reshape (x_flat, x_shape)
  x = Transpose <perm = [0, 3, 4, 1, 5, 2]> (x_rows)
  bc_shape = Concat <axis = 0> (v0, chunks, L, G, v1, N)
  B_rows = Reshape (B_flat, bc_shape)
  C_rows = Reshape (C_flat, bc_shape)
  B = Transpose <perm = [0, 3, 4, 1, 2, 5]> (B_rows)
  C_t = Transpose <perm = [0, 3, 4, 1, 5, 2]> (C_rows)
  dt_shape = Concat <axis = 0> (v0, chunks, L, G, R, v1)
  dt_rows = Reshape (dt_padded, dt_shape)
  dt = Transpose <perm = [0, 3, 4, 1, 5, 2]> (dt_rows)
  dt_j = Transpose <perm = [0, 3, 4, 1, 2, 5]> (dt_rows)

  A_f = Cast <to = 1> (A_log)
  A_exp = Exp (A_f)
  A_neg = Neg (A_exp)
  per_head = Concat <axis = 0> (v1, G, R, v1, v1, v1)
  A = Reshape (A_neg, per_head)
  log_decay = Mul (dt, A)
  cum = CumSum (log_decay, axis_5)

  l_ = Squeeze (L, v0)
  index = Range (zero, l_, one)
  i_axes = Constant <value_ints = [0, 1, 2, 3, 4]> ()
  j_axes = Constant <value_ints = [0, 1, 2, 3, 5]> ()
  index_i = Unsqueeze (index, i_axes)
  index_j = Unsqueeze (index, j_axes)
  later = Greater (index_i, index_j)
  steps_after_j = Where (later, log_decay, f0)
  between = CumSum (steps_after_j, axis_5)
  decay_full = Exp (between)
  causal = GreaterOrEqual (index_i, index_j)
  decay = Where (causal, decay_full, f0)
  weight = Mul (decay, dt_j)
  BC = MatMul (B, C_t)
  mixing = Mul (weight, BC)
  y_inside = MatMul (x, mixing)

  to_end = CumSum <exclusive = 1, reverse = 1> (log_decay, axis_5)
  decay_end = Exp (to_end)
  weight_end = Mul (decay_end, dt)
  x_weighted = Mul (x, weight_end)
  U_block = MatMul (x_weighted, B)
  flat = Constant <value_ints = [0, 0, 0, 0, -1]> ()
  U = Reshape (U_block, flat)

  ends = Add (chunks, v1)
  chunks_ = Squeeze (chunks, v0)
  ends_ = Squeeze (ends, v0)
  number = Range (zero, chunks_, one)
  number_to = Range (zero, ends_, one)
  from_axes = Constant <value_ints = [0, 1, 2, 3]> ()
  to_axes = Constant <value_ints = [0, 1, 2, 4]> ()
  number_from = Unsqueeze (number, from_axes)
  number_to_ = Unsqueeze (number_to, to_axes)
  earlier = Greater (number_to_, number_from)
  steps_from = Transpose <perm = [0, 1, 2, 4, 3, 5]> (log_decay)
  total_from = ReduceSum <keepdims = 0> (steps_from, v5)
  totals_before = Where (earlier, total_from, f0)
  e_between = CumSum <exclusive = 1, reverse = 1> (totals_before, axis_4)
  pass_full = Exp (e_between)
  passing = Where (earlier, pass_full, f0)
  from_chunks = MatMul (passing, U)
  first_shape = Concat <axis = 0> (v0, G, R, v1, last)
  S_first = Reshape (ssm_state, first_shape)
  e_before = ReduceSum (totals_before, v4)
  decay_first = Exp (e_before)
  from_first = Mul (decay_first, S_first)
  S_all = Add (from_chunks, from_first)
  S_in_flat = Slice (S_all, v0, chunks, v3)
  S_end = Gather <axis = 3> (S_all, chunks)
  state_shape = Shape (ssm_state)
  S_final = Reshape (S_end, state_shape)
  moved = Greater (length, zero)
  moved_axes = Constant <value_ints = [1, 2, 3]> ()
  moved_ = Unsqueeze (moved, moved_axes)
  ssm_state_out = Where (moved_, S_final, ssm_state)

  copy_4 = Constant <value_ints = [0, 0, 0, 0]> ()
  block = Concat <axis = 0> (copy_4, P, N)
  S_in = Reshape (S_in_flat, block)
  y_state = MatMul (S_in, C_t)
  decay_in = Exp (cum)
  y_entering = Mul (y_state, decay_in)
  D_f = Cast <to = 1> (D)
  D_ = Reshape (D_f, per_head)
  y_skip = Mul (x, D_)
  y_scan = Add (y_inside, y_entering)
  y_block = Add (y_scan, y_skip)
  y_rows = Transpose <perm = [0, 3, 5, 1, 2, 4]> (y_block)
  y_shape = Concat <axis = 0> (v0, T_padded, di)
  y_padded = Reshape (y_rows, y_shape)
  y_real = Slice (y_padded, v0, T, v1)

  z = Cast <to = 1> (z_raw)
  gate = Sigmoid (z)
  silu = Mul (z, gate)
  gated = Mul (y_real, silu)
  norm_shape = Concat <axis = 0> (v0, v0, G, last)
  by_group = Reshape (gated, norm_shape)
  squares = Mul (by_group, by_group)
  mean = ReduceMean (squares, last)
  eps = Constant <value_float: float = @epsilon> ()
  mean_eps = Add (mean, eps)
  root = Sqrt (mean_eps)
  normed = Div (by_group, root)
  y_flat = Concat <axis = 0> (v0, v0, di)
  normed_flat = Reshape (normed, y_flat)
  norm_f = Cast <to = 1> (norm_weight)
  scaled = Mul (normed_flat, norm_f)
  y = CastLike (scaled, projected)
}}
"""


def function(opset: int) -> onnx.FunctionProto:
    """The body; every size is an attribute or a shape of an operand.

    Operands, attributes and defaults are those of the contract.
    """
    contract = load_contract("mamba2_mixer")
    body = onnx.parser.parse_function(
        _BODY.format(
            opset=opset,
            inputs=", ".join(operand.name for operand in contract.inputs),
            outputs=", ".join(operand.name for operand in contract.outputs),
            chunk=CHUNK,
            chunk_less_one=CHUNK - 1,
        )
    )
    body.attribute_proto.extend(onnx.helper.make_attribute(name, value) for name, value in contract.defaults.items())
    return body
