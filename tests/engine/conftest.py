"""A small model with the interface of a real one: every input, a state of each kind, weights as inputs, BF16."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import onnx.parser
import pytest

from closed_form import state_ports
from elastic_export.engine.request import EngineRequest
from elastic_runtime.format.interface import Port, logits_port, token_ports

VOCAB, HIDDEN, FFN, HEADS, KV, HEAD_DIM = 48, 64, 40, 4, 2, 16

# `length` selects the logits row and masks the conv state; S stays a symbol, as in the file that ships.
MODEL = """<ir_version: 11, opset_import: ["": 24]>
small (
  int64[B,T] input_ids, int64[B] position, int64[B] length,
  bfloat16[B,3,64] "conv_state.0", float[B,4,16,8] "ssm_state.0",
  bfloat16[B,2,S,16] "key_cache.0", bfloat16[B,2,S,16] "value_cache.0",
  bfloat16[48,64] emb, bfloat16[40,64] up, bfloat16[64,40] down, bfloat16[64,64] q_w, bfloat16[32,64] k_w,
  bfloat16[32,64] v_w, bfloat16[48,64] head
) => (
  float[B,48] logits, bfloat16[B,3,64] "conv_state_out.0", float[B,4,16,8] "ssm_state_out.0",
  bfloat16[B,2,S,16] "key_cache_out.0", bfloat16[B,2,S,16] "value_cache_out.0"
) {
  zero = Constant<value_int = 0>()
  one = Constant<value_int = 1>()
  v0 = Constant<value_ints = [0]>()
  v1 = Constant<value_ints = [1]>()
  v12 = Constant<value_ints = [1, 2]>()
  v13 = Constant<value_ints = [1, 3]>()
  bt = Shape(input_ids)
  T0 = Shape<start = 1, end = 2>(input_ids)
  Tn = Squeeze(T0)
  S0 = Shape<start = 2, end = 3>("key_cache.0")
  Sn = Squeeze(S0)
  flat_shape = Constant<value_ints = [-1, 64]>()

  x = Gather(emb, input_ids)
  xf = Reshape(x, flat_shape)
  u = Gemm<transB = 1>(xf, up)
  r = Relu(u)
  a = Mul(r, r)
  m = Gemm<transB = 1>(a, down)
  h = Add(xf, m)

  q_shape = Constant<value_ints = [4, 16]>()
  kv_shape = Constant<value_ints = [2, 16]>()
  q_full = Concat<axis = 0>(bt, q_shape)
  kv_full = Concat<axis = 0>(bt, kv_shape)
  q2 = Gemm<transB = 1>(h, q_w)
  k2 = Gemm<transB = 1>(h, k_w)
  v2 = Gemm<transB = 1>(h, v_w)
  q3 = Reshape(q2, q_full)
  k3 = Reshape(k2, kv_full)
  w3 = Reshape(v2, kv_full)
  q = Transpose<perm = [0, 2, 1, 3]>(q3)
  k = Transpose<perm = [0, 2, 1, 3]>(k3)
  v = Transpose<perm = [0, 2, 1, 3]>(w3)
  "key_cache_out.0" = TensorScatter<axis = 2, mode = "linear">("key_cache.0", k, position)
  "value_cache_out.0" = TensorScatter<axis = 2, mode = "linear">("value_cache.0", v, position)
  rows = Range(zero, Tn, one)
  cols = Range(zero, Sn, one)
  p1 = Unsqueeze(position, v1)
  limit = Add(p1, rows)
  limit4 = Unsqueeze(limit, v13)
  mask = LessOrEqual(cols, limit4)
  o = Attention(q, "key_cache_out.0", "value_cache_out.0", mask)
  ot = Transpose<perm = [0, 2, 1, 3]>(o)
  of = Reshape(ot, flat_shape)
  y = Add(h, of)

  hidden_shape = Constant<value_ints = [64]>()
  y_full = Concat<axis = 0>(bt, hidden_shape)
  y3 = Reshape(y, y_full)
  l1 = Sub(length, one)
  last = Max(l1, zero)
  index = Unsqueeze(last, v1)
  picked = GatherND<batch_dims = 1>(y3, index)
  lg = Gemm<transB = 1>(picked, head)
  logits = Cast<to = 1>(lg)

  real = Greater(length, zero)
  real3 = Unsqueeze(real, v12)
  p3 = Unsqueeze(picked, v1)
  shifted = Add("conv_state.0", p3)
  "conv_state_out.0" = Where(real3, shifted, "conv_state.0")
  "ssm_state_out.0" = Add("ssm_state.0", "ssm_state.0")
}
"""

WEIGHTS = {
    "emb": (VOCAB, HIDDEN),
    "up": (FFN, HIDDEN),
    "down": (HIDDEN, FFN),
    "q_w": (HEADS * HEAD_DIM, HIDDEN),
    "k_w": (KV * HEAD_DIM, HIDDEN),
    "v_w": (KV * HEAD_DIM, HIDDEN),
    "head": (VOCAB, HIDDEN),
}


@pytest.fixture(scope="session")
def addresses_can_be_fixed() -> bool:
    """Whether a process may switch address randomisation off here; asked in one of its own, without our code."""
    ask = "import ctypes; print(ctypes.CDLL(None).personality(0x0040000) >= 0)"
    return subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout == "True\n"


@pytest.fixture
def model_text() -> str:
    """The small model as ONNX text, for tests that break it."""
    return MODEL


@pytest.fixture
def weight_shapes() -> dict[str, tuple[int, int]]:
    """Its weights by name."""
    return WEIGHTS


@pytest.fixture
def request_for_small_model(tmp_path: Path) -> EngineRequest:
    """A request that builds: SM120, batch up to 2, 8 tokens, 32 of context."""
    model = onnx.parser.parse_model(MODEL)
    onnx.checker.check_model(model)
    onnx.save(model, str(tmp_path / "model.onnx"))
    return EngineRequest(
        onnx=tmp_path / "model.onnx",
        output=tmp_path / "bundle" / "rtx5080.engine",
        compute_capabilities=("SM120",),
        precision="bf16",
        max_tokens=8,
        max_context=32,
        max_batch=2,
        ops="native",
        ports=(*token_ports(), *state_ports("bfloat16", mamba=[(4, HIDDEN, 4, 16, 8)], attention=[(KV, HEAD_DIM)])),
        outputs=(logits_port(VOCAB, every_token=False),),
        weights=tuple(Port(name, "bfloat16", shape) for name, shape in WEIGHTS.items()),
    )
