"""The attention's function body in onnxruntime (float32) against the readable reference in float64, in both forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from attention_model import Attention, attention_model
from elastic_export.dtypes import DTYPES
from elastic_export.ops.cached_attention import CACHED_ATTENTION
from elastic_export.ops.cached_attention import body as attention_body
from elastic_export.ops.cached_attention.torch_op import cached_attention
from elastic_export.opset import OPSET
from elastic_export.products import TENSORRT, TENSORRT_RTX
from elastic_runtime.ort.twin import float32_twin
from synthetic import NANO_12B

Array = np.ndarray[Any, Any]
Session = Callable[[bytes], Any]
TOLERANCE = 2e-6  # float32 against float64
FORMS = pytest.mark.parametrize("fused", [True, False], ids=["fused", "explicit"])


@dataclass(frozen=True)
class Case:
    """One call; each row of the table below changes one thing of the base."""

    T: int = 3
    position: tuple[int, ...] = (0, 5)
    S: int = 9
    H: int = 4
    G: int = 2
    D: int = 8

    def inputs(self, seed: int = 1) -> dict[str, Array]:
        """Rows of the caches that hold nothing yet are poison: whoever reads one shows."""
        rng, B = np.random.default_rng(seed), len(self.position)
        shapes = {"query": self.H * self.D, "key": self.G * self.D, "value": self.G * self.D}
        values = {name: rng.standard_normal((B, self.T, width), np.float32) for name, width in shapes.items()}
        for name in ("key_cache", "value_cache"):
            values[name] = rng.standard_normal((B, self.G, self.S, self.D), np.float32)
            for row, first in enumerate(self.position):
                values[name][row, :, first:] = 1e4
        return {f"{name}.0": value for name, value in values.items()} | {"position": np.array(self.position)}


CASES = {
    "base": Case(),
    "one token": Case(T=1, position=(0, 8)),
    "a full cache": Case(T=9, position=(0,)),
    "the last rows": Case(T=2, position=(7, 7, 0)),
    "every head its own keys": Case(H=3, G=3),
    "one KV head": Case(H=5, G=1),
    "an odd head size": Case(D=5),
    "a long cache": Case(T=4, position=(200, 0, 13), S=300),
}


def expected_of(case: Case, inputs: dict[str, Array]) -> list[Array]:
    names = ("query.0", "key.0", "value.0", "key_cache.0", "value_cache.0")
    tensors = [torch.from_numpy(inputs[name]).double() for name in names]
    position = torch.from_numpy(inputs["position"])
    sizes = (case.H, case.G, case.D, 1 / math.sqrt(case.D))
    return [out.numpy() for out in cached_attention(*tensors, position, *sizes)]


@FORMS
@pytest.mark.parametrize("name", CASES)
def test_body_is_the_op(name: str, fused: bool, session: Session) -> None:
    case = CASES[name]
    model = attention_model(Attention(case.H, case.G, case.D, "float", fused))
    onnx.checker.check_model(model, full_check=True)
    inputs = case.inputs()
    y, keys, values = session(model.SerializeToString()).run(None, inputs)
    expected = expected_of(case, inputs)
    assert np.linalg.norm(y - expected[0]) <= TOLERANCE * np.linalg.norm(expected[0])
    np.testing.assert_array_equal(keys, expected[1])
    np.testing.assert_array_equal(values, expected[2])


@FORMS
def test_calls_one_after_the_other_are_one(fused: bool, session: Session) -> None:
    """How a prompt is cut does not matter, to the last bits that another order of sums leaves."""
    case = Case(T=7, position=(0, 2), S=12)
    run = session(attention_model(Attention(case.H, case.G, case.D, "float", fused)).SerializeToString()).run
    inputs = case.inputs()
    whole = run(None, inputs)
    parts, state = [], inputs
    for start, stop in ((0, 4), (4, 5), (5, 7)):
        call = {name: state[name][:, start:stop] for name in ("query.0", "key.0", "value.0")}
        y, keys, values = run(None, state | call | {"position": inputs["position"] + start})
        parts.append(y)
        state = state | {"key_cache.0": keys, "value_cache.0": values}
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state["key_cache.0"], whole[1])
    np.testing.assert_array_equal(state["value_cache.0"], whole[2])


FAULTS = {
    "sees a row less": ("LessOrEqual", "Less"),
    "sees a row more": ("tokens = Range (zero, t_, one)", "less = Range (zero, t_, one)\n  tokens = Add (less, one)"),
    "forgets the position": (
        "newest = Add (first, tokens)",
        "past = Add (first, tokens)\n  newest = Sub (past, first)",
    ),
    "writes at row 0": ("key_rows, position)", "key_rows)"),
    "heads interleaved": ("q = Transpose <perm = [0, 2, 1, 3]>", "q = Transpose <perm = [0, 3, 1, 2]>"),
    "keys for values": ("(value, kv_shape)", "(key, kv_shape)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_seen(name: str, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    case, (old, new) = Case(D=4), FAULTS[name]  # as many heads as channels: any split has the right shape
    assert attention_body._BODY.count(old) == 1, name
    monkeypatch.setattr(attention_body, "_BODY", attention_body._BODY.replace(old, new))
    model, inputs = attention_model(Attention(case.H, case.G, case.D, "float")), case.inputs()
    found = session(model.SerializeToString()).run(None, inputs)
    expected = expected_of(case, inputs)
    errors = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(found, expected, strict=True)]
    assert max(errors) > 1e-2


def ops_of(fused: bool) -> list[str]:
    return [node.op_type for node in attention_body.function(OPSET, fused=fused).node if node.op_type != "Constant"]


def test_the_form_is_that_of_the_products_kernel() -> None:
    """One `Attention` where there is a fused kernel for the shape, else products in float32 with no copies of keys."""
    fused, explicit = ops_of(True), ops_of(False)
    assert fused.count("Attention") == 1
    assert not {"Softmax", "MatMul", "Cast"} & {*fused}
    assert "Attention" not in explicit
    assert [op for op in explicit if op in ("MatMul", "Softmax", "Where")] == ["MatMul", "Where", "Softmax", "MatMul"]
    assert not {"Expand", "Tile"} & {*explicit}
    for precision in DTYPES:
        assert CACHED_ATTENTION.form(NANO_12B, precision, TENSORRT_RTX) == {"fused": precision != "fp32"}
        assert CACHED_ATTENTION.form(NANO_12B, precision, TENSORRT) == {"fused": False}
        written = CACHED_ATTENTION.function(OPSET, NANO_12B, precision, TENSORRT_RTX)
        assert ("Attention" in {node.op_type for node in written.node}) == (precision != "fp32")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_explicit_form_computes_in_float32_whatever_it_is_given(dtype: str) -> None:
    model = attention_model(Attention(2, 1, 12, dtype, fused=False))
    inlined = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(model), strict_mode=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in inlined.graph.value_info}
    computed = [node for node in inlined.graph.node if node.op_type in ("MatMul", "Softmax", "Mul")]
    assert len(computed) == 4
    assert {kinds[name] for node in computed for name in node.output} == {onnx.TensorProto.FLOAT}
    (y,) = [v for v in model.graph.output if v.name == "y.0"]
    assert y.type.tensor_type.elem_type != onnx.TensorProto.FLOAT


@FORMS
def test_its_twin_rounds_the_result_where_the_original_is_rounded(fused: bool, session: Session) -> None:
    """The op's result is what it is for the graph that calls it: exact in the plain twin, rounded in the other."""
    case = Case()
    model, inputs = attention_model(Attention(case.H, case.G, case.D, "bfloat16", fused)), case.inputs()
    inner = ("query.0", "key.0", "value.0", "y.0")
    exact, rounded = (
        session(float32_twin(model, rounded=rounded, inner=inner).SerializeToString()).run(None, inputs)[0]
        for rounded in (False, True)
    )
    expected = expected_of(case, inputs)[0]
    assert np.linalg.norm(exact - expected) <= TOLERANCE * np.linalg.norm(expected)
    narrow = exact.astype(DTYPES["bf16"].numpy).astype(np.float32)
    assert 1e-4 < np.linalg.norm(exact - narrow) / np.linalg.norm(exact) < 4e-3
    np.testing.assert_array_equal(rounded, rounded.astype(DTYPES["bf16"].numpy).astype(np.float32))
    assert np.linalg.norm(rounded - narrow) <= 1e-3 * np.linalg.norm(narrow)
