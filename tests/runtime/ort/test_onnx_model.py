"""One call under onnxruntime: weights as they are stored, states as float32, every refusal named."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest

from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.ort.onnx_model import OnnxModel

TEXT = """<ir_version: 11, opset_import: ["": 24]>
tiny (int64[B,T] input_ids, int64[B] position, int64[B] length, bfloat16[B,4] "conv_state.0",
      bfloat16[B,2,S,4] "key_cache.0", bfloat16[9,4] w)
  => (float[B,4] logits, bfloat16[B,4] "conv_state_out.0", bfloat16[B,2,S,4] "key_cache_out.0") {
  zero = Constant<value_ints = [0]>()
  first = Gather<axis = 1>(input_ids, zero)
  one = Constant<value_ints = [1]>()
  ids = Squeeze(first, one)
  x = Gather(w, ids)
  logits = Cast<to = 1>(x)
  "conv_state_out.0" = Add("conv_state.0", x)
  "key_cache_out.0" = Identity("key_cache.0")
}"""
WEIGHT = (np.arange(36, dtype=np.float32).reshape(9, 4) / 7).astype(ml_dtypes.bfloat16)


def loaded(text: str = TEXT, **options: Any) -> OnnxModel:
    return OnnxModel(onnx.parser.parse_model(text), [("w", WEIGHT)], **options)


def arguments(rows: int = 2, token: int = 3) -> tuple[Any, ...]:
    return np.full((rows, 2), token), np.zeros(rows), np.ones(rows)


def test_a_call() -> None:
    model = loaded()
    state = model.empty_state(2, 5, cache_fill=7.0)
    assert {name: (array.dtype, array.shape) for name, array in state.items()} == {
        "conv_state.0": (np.float32, (2, 4)),
        "key_cache.0": (np.float32, (2, 2, 5, 4)),
    }
    assert not state["conv_state.0"].any()
    assert (state["key_cache.0"] == 7.0).all()
    state["conv_state.0"][:] = 0.25
    kept = state["conv_state.0"].copy()
    logits, new = model.call(*arguments(), state)
    np.testing.assert_array_equal(logits, np.tile(WEIGHT[3].astype(np.float32), (2, 1)))
    np.testing.assert_array_equal(new["conv_state.0"], logits + np.float32(0.25))
    np.testing.assert_array_equal(state["conv_state.0"], kept)


def test_rounded_and_taps() -> None:
    model = loaded(rounded=True, taps=["x"])
    state = model.empty_state(1, 1)
    state["conv_state.0"][:] = 100.0
    outputs = model.run(*arguments(1), state)
    np.testing.assert_array_equal(outputs["x"], WEIGHT[3:4].astype(np.float32))
    exact = 100 + WEIGHT[3:4].astype(np.float32)
    rounded = exact.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(outputs["conv_state_out.0"], rounded)
    assert not np.array_equal(exact, rounded)


def test_weights_must_be_those_of_the_model() -> None:
    model = onnx.parser.parse_model(TEXT)
    with pytest.raises(InputError, match=r"weights of the model: expected 1 inputs, found differing \['w'\]"):
        OnnxModel(model, [])
    with pytest.raises(InputError, match=r"found differing \['v'\]\. Export the bundle again"):
        OnnxModel(model, [("w", WEIGHT), ("v", WEIGHT)])


def test_a_file_that_cannot_be_loaded_is_named() -> None:
    with pytest.raises(
        BuildError, match=r"^model\.onnx: expected a model onnxruntime loads, found .*Gathr.* Update onnxruntime"
    ):
        loaded(TEXT.replace("x = Gather", "x = Gathr"))


def test_a_call_that_fails_is_named() -> None:
    model = loaded()
    with pytest.raises(BuildError, match=r"^model\.onnx: expected a model onnxruntime runs, found .*indices"):
        model.call(*arguments(token=9), model.empty_state(2, 1))


def test_a_state_without_its_output_is_named() -> None:
    model = onnx.parser.parse_model(TEXT)
    del model.graph.output[1]
    ready = OnnxModel(model, [("w", WEIGHT)])
    with pytest.raises(BuildError, match=r"expected an output for every state, found no conv_state_out\.0"):
        ready.call(*arguments(), ready.empty_state(2, 1))
