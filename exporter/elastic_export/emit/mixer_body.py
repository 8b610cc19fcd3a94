"""What `elastic::Mamba2Mixer` means, in standard ONNX ops: the function body that every emitted file carries.

The chunk form of the selective scan (Dao and Gu 2024, arXiv 2405.21060, section 6), see also the per-step form in
`reference/mamba2.py`. Tokens are cut into chunks of L = min(T, 64); inside a chunk everything is matrix products,
between chunks a small triangular product passes the states. So prefill is parallel in T, memory grows with T·64
instead of T², and T = 1 costs one step.

    cum_i = Σ_{j≤i} dt_j·A          E_ij = exp(min(cum_i - cum_j, 0)) for j ≤ i, else 0
    y_i   = Σ_j (C_i·B_j) E_ij dt_j x_j + exp(cum_i) S_in C_i + D x_i
    U     = Σ_j exp(cum_L - cum_j) dt_j x_j ⊗ B_j
    S_in  = Σ_{c'≤c} exp(e_c - e_c') U_{c'-1} of chunk c, with U_{-1} = S_0 and e the running sum of cum_L

Written for two readers. TensorRT-RTX wants one body an op, no optional inputs, and the chunk count as (T + 63) / 64
with a constant divisor: with the dynamic L it assumes T chunks and takes gigabytes of scratch. onnxruntime's CPU wants
float32. Softplus is max(s, 0) + 2·atanh(u / (2 + u)) with u = exp(-|s|), which is log1p(u): log(1 + u) would lose
dt below 1e-4.
"""

from __future__ import annotations

import onnx
import onnx.parser

from elastic_export.reference.contract import load_contract

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
  last = Constant <value_ints = [-1]> ()
  g_ = Constant <value_int: int = @n_groups> ()
  p_ = Constant <value_int: int = @head_dim> ()
  n_ = Constant <value_int: int = @state_size> ()
  G = Unsqueeze (g_, v0)
  P = Unsqueeze (p_, v0)
  N = Unsqueeze (n_, v0)
  H = Shape (A_log)
  R = Div (H, G)
  RP = Mul (R, P)
  di = Mul (H, P)
  gn = Mul (G, N)
  di_gn = Add (di, gn)
  dc = Add (di_gn, gn)
  z_xBC = Add (di, dc)
  all = Add (z_xBC, H)

  T = Shape <start = 1, end = 2> (projected)
  L_max = Constant <value_ints = [{chunk}]> ()
  round_up = Constant <value_ints = [{chunk_less_one}]> ()
  L = Min (T, L_max)
  T_up = Add (T, round_up)
  chunks = Div (T_up, L_max)
  T_padded = Mul (chunks, L)
  padding = Sub (T_padded, T)
  t_ = Squeeze (T, v0)
  rows = Range (zero, t_, one)
  length_ = Unsqueeze (length, v1)
  valid = Less (rows, length_)

  z_raw = Slice (projected, v0, di, v2)
  xBC_raw = Slice (projected, di, z_xBC, v2)
  dt_raw = Slice (projected, z_xBC, all, v2)
  z = Cast <to = 1> (z_raw)

  window = Concat <axis = 1> (conv_state, xBC_raw)
  K_less_one = Shape <start = 1, end = 2> (conv_state)
  k_ = Squeeze (K_less_one, v0)
  taps = Range (zero, k_, one)
  state_rows = Add (length_, taps)
  state_index = Unsqueeze (state_rows, v2)
  conv_state_out = GatherND <batch_dims = 1> (window, state_index)
  window_f = Cast <to = 1> (window)
  weight_t = Transpose <perm = [2, 1, 0]> (conv_weight)
  weight_f = Cast <to = 1> (weight_t)
  conv_0 = Cast <to = 1> (conv_bias)
{taps}
  conv_gate = Sigmoid (conv_{K})
  xBC = Mul (conv_{K}, conv_gate)

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
  valid_ = Unsqueeze (valid, v2)
  dt = Where (valid_, dt_clamped, f0)

  pads_head = Constant <value_ints = [0, 0, 0, 0]> ()
  pads = Concat <axis = 0> (pads_head, padding, v0)
  xBC_padded = Pad (xBC, pads, f0)
  dt_padded = Pad (dt, pads, f0)
  x_flat = Slice (xBC_padded, v0, di, v2)
  B_flat = Slice (xBC_padded, di, di_gn, v2)
  C_flat = Slice (xBC_padded, di_gn, dc, v2)

  x_shape = Concat <axis = 0> (v0, chunks, L, G, RP)
  x_rows = Reshape (x_flat, x_shape)
  x_chunk = Transpose <perm = [0, 1, 3, 4, 2]> (x_rows)
  heads_pl = Concat <axis = 0> (v0, v0, G, R, P, L)
  x = Reshape (x_chunk, heads_pl)
  bc_shape = Concat <axis = 0> (v0, chunks, L, G, N)
  B_rows = Reshape (B_flat, bc_shape)
  C_rows = Reshape (C_flat, bc_shape)
  B = Transpose <perm = [0, 1, 3, 2, 4]> (B_rows)
  B_t = Transpose <perm = [0, 1, 3, 4, 2]> (B_rows)
  C = Transpose <perm = [0, 1, 3, 2, 4]> (C_rows)
  C_t = Transpose <perm = [0, 1, 3, 4, 2]> (C_rows)

  A_f = Cast <to = 1> (A_log)
  A_exp = Exp (A_f)
  A = Neg (A_exp)
  dt_shape = Concat <axis = 0> (v0, chunks, L, H)
  dt_chunk = Reshape (dt_padded, dt_shape)
  log_decay = Mul (dt_chunk, A)
  two = Constant <value_int = 2> ()
  cum_rows = CumSum (log_decay, two)
  cum = Transpose <perm = [0, 1, 3, 2]> (cum_rows)
  dt_t = Transpose <perm = [0, 1, 3, 2]> (dt_chunk)

  cum_i = Unsqueeze (cum, v4)
  cum_j = Unsqueeze (cum, v3)
  difference = Sub (cum_i, cum_j)
  not_positive = Min (difference, f0)
  decay_full = Exp (not_positive)
  l_ = Squeeze (L, v0)
  index = Range (zero, l_, one)
  index_i = Unsqueeze (index, v1)
  causal = GreaterOrEqual (index_i, index)
  decay = Where (causal, decay_full, f0)
  dt_j = Unsqueeze (dt_t, v3)
  weight_h = Mul (decay, dt_j)
  group_ll = Concat <axis = 0> (v0, v0, G, R, L, L)
  weight_g = Reshape (weight_h, group_ll)
  CB = MatMul (C, B_t)
  CB_ = Unsqueeze (CB, v3)
  mixing = Mul (CB_, weight_g)
  mixing_t = Transpose <perm = [0, 1, 2, 3, 5, 4]> (mixing)
  y_inside = MatMul (x, mixing_t)

  cum_last = Slice (cum, last, L_max, v3)
  to_end = Sub (cum_last, cum)
  to_end_ = Min (to_end, f0)
  decay_end = Exp (to_end_)
  weight_end = Mul (decay_end, dt_t)
  group_1l = Concat <axis = 0> (v0, v0, G, R, v1, L)
  weight_end_g = Reshape (weight_end, group_1l)
  x_weighted = Mul (x, weight_end_g)
  stacked = Concat <axis = 0> (v0, v0, G, RP, L)
  x_stacked = Reshape (x_weighted, stacked)
  U = MatMul (x_stacked, B)

  state_shape = Concat <axis = 0> (v0, v1, G, RP, N)
  S_first = Reshape (ssm_state, state_shape)
  sources = Concat <axis = 1> (S_first, U)
  by_head = Concat <axis = 0> (v0, last, H, P, N)
  sources_h = Reshape (sources, by_head)
  sources_t = Transpose <perm = [0, 2, 1, 3, 4]> (sources_h)
  flat_state = Concat <axis = 0> (v0, v0, v0, last)
  sources_flat = Reshape (sources_t, flat_state)
  total = Squeeze (cum_last, v3)
  pad_front = Constant <value_ints = [0, 1, 0, 0, 0, 0]> ()
  total_padded = Pad (total, pad_front, f0)
  e_rows = CumSum (total_padded, one)
  e = Transpose <perm = [0, 2, 1]> (e_rows)
  e_to = Unsqueeze (e, v3)
  e_from = Unsqueeze (e, v2)
  e_difference = Sub (e_to, e_from)
  e_not_positive = Min (e_difference, f0)
  pass_full = Exp (e_not_positive)
  ends = Add (chunks, v1)
  ends_ = Squeeze (ends, v0)
  end_index = Range (zero, ends_, one)
  end_index_i = Unsqueeze (end_index, v1)
  end_causal = GreaterOrEqual (end_index_i, end_index)
  passing = Where (end_causal, pass_full, f0)
  states_flat = MatMul (passing, sources_flat)
  states_shape = Concat <axis = 0> (v0, v0, last, P, N)
  states = Reshape (states_flat, states_shape)
  S_last = Slice (states, chunks, ends, v2)
  S_final = Squeeze (S_last, v2)
  moved = Greater (length, zero)
  moved_3 = Constant <value_ints = [1, 2, 3]> ()
  moved_ = Unsqueeze (moved, moved_3)
  ssm_state_out = Where (moved_, S_final, ssm_state)

  S_in = Slice (states, v0, chunks, v2)
  S_in_t = Transpose <perm = [0, 2, 1, 3, 4]> (S_in)
  in_shape = Concat <axis = 0> (v0, v0, G, RP, N)
  S_in_g = Reshape (S_in_t, in_shape)
  y_state = MatMul (S_in_g, C_t)
  y_state_h = Reshape (y_state, heads_pl)
  decay_in = Exp (cum)
  decay_in_g = Reshape (decay_in, group_1l)
  y_entering = Mul (y_state_h, decay_in_g)
  D_f = Cast <to = 1> (D)
  d_shape = Concat <axis = 0> (G, R, v1, v1)
  D_g = Reshape (D_f, d_shape)
  y_skip = Mul (x, D_g)
  y_scan = Add (y_inside, y_entering)
  y_heads = Add (y_scan, y_skip)
  y_merged = Reshape (y_heads, stacked)
  y_rows = Transpose <perm = [0, 1, 4, 2, 3]> (y_merged)
  y_flat_shape = Concat <axis = 0> (v0, T_padded, di)
  y_padded = Reshape (y_rows, y_flat_shape)
  y_real = Slice (y_padded, v0, T, v1)

  gate = Sigmoid (z)
  silu = Mul (z, gate)
  gated = Mul (y_real, silu)
  norm_shape = Concat <axis = 0> (v0, v0, G, RP)
  by_group = Reshape (gated, norm_shape)
  squares = Mul (by_group, by_group)
  mean = ReduceMean (squares, last)
  eps = Constant <value_float: float = @epsilon> ()
  mean_eps = Add (mean, eps)
  root = Sqrt (mean_eps)
  normed = Div (by_group, root)
  y_shape = Concat <axis = 0> (v0, v0, di)
  normed_flat = Reshape (normed, y_shape)
  norm_f = Cast <to = 1> (norm_weight)
  scaled = Mul (normed_flat, norm_f)
  y = CastLike (scaled, projected)
}}
"""

_TAP = """  tap_{j} = Constant <value_ints = [{j}]> ()
  until_{j} = Add (tap_{j}, T)
  rows_{j} = Slice (window_f, tap_{j}, until_{j}, v1)
  number_{j} = Constant <value_int = {j}> ()
  w_{j} = Gather <axis = 0> (weight_f, number_{j})
  term_{j} = Mul (rows_{j}, w_{j})
  conv_{next} = Add (conv_{j}, term_{j})"""


def mixer_function(conv_kernel: int, opset: int) -> onnx.FunctionProto:
    """The body for a convolution of `conv_kernel` taps; everything else is attribute or shape.

    Operands, attributes and defaults are those of the contract.
    """
    contract = load_contract("mamba2_mixer")
    function = onnx.parser.parse_function(
        _BODY.format(
            opset=opset,
            inputs=", ".join(operand.name for operand in contract.inputs),
            outputs=", ".join(operand.name for operand in contract.outputs),
            chunk=CHUNK,
            chunk_less_one=CHUNK - 1,
            K=conv_kernel,
            taps="\n".join(_TAP.format(j=j, next=j + 1) for j in range(conv_kernel)),
        )
    )
    function.attribute_proto.extend(
        onnx.helper.make_attribute(name, value) for name, value in contract.defaults.items()
    )
    return function
