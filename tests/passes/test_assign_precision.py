"""AssignPrecision: the model's dtype where it belongs, float32 where the mathematics wants it."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from elastic_export.graph.facts import Weight, facts_of
from elastic_export.passes.assign_precision import AssignPrecision
from elastic_runtime.errors import InternalError

FLOAT, BF16, FP16 = ir.DataType.FLOAT, ir.DataType.BFLOAT16, ir.DataType.FLOAT16
BEFORE = """g (float[B,3] x, float[3] w1, float[5,3] w2) => (float[B,5] logits) <float[B,3] n, float[3,5] t> {
  n = RMSNormalization <axis: int = -1, epsilon: float = 0.25> (x, w1)
  t = Transpose <perm: ints = [1, 0]> (w2)
  logits = MatMul(n, t)
}"""
AFTER = """g (bfloat16[B,3] x, bfloat16[3] w1, bfloat16[5,3] w2) => (float[B,5] logits)
<float[B,3] x32, float[3] w32, float[B,3] n32, bfloat16[B,3] n, bfloat16[3,5] t, bfloat16[B,5] product> {
  x32 = Cast <to: int = 1> (x)
  w32 = Cast <to: int = 1> (w1)
  n32 = RMSNormalization <axis: int = -1, epsilon: float = 0.25> (x32, w32)
  n = Cast <to: int = 16> (n32)
  t = Transpose <perm: ints = [1, 0]> (w2)
  product = MatMul(n, t)
  logits = Cast <to: int = 1> (product)
}"""
WIDE_NORM = AFTER.replace("bfloat16[3] w1", "float[3] w1").replace("  w32 = Cast <to: int = 1> (w1)\n", "").replace(
    "(x32, w32)", "(x32, w1)"
)  # fmt: skip
MIXER = """g (float[B,T,12] x, float[6,1,2] w1, float[6] w2, float[2] w3, float[2] w4, float[2] w5, float[4] w6,
  int64[B] length, float[B,1,6] conv_state.0, float[B,2,2,1] ssm_state.0)
=> (float[B,T,4] logits, float[B,1,6] conv_state_out.0, float[B,2,2,1] ssm_state_out.0) <float[B,T,4] y> {
  y, conv_state_out.0, ssm_state_out.0 = elastic.Mamba2Mixer <n_groups: int = 1, head_dim: int = 2, state_size: int = 1,
    epsilon: float = 0.25, time_step_min: float = 0.0, time_step_max: float = 0.5>
    (x, w1, w2, w3, w4, w5, w6, length, conv_state.0, ssm_state.0)
  logits = Relu(y)
}"""


def stored(model: ir.Model, dtype: ir.DataType, **other: ir.DataType) -> dict[str, ir.DataType]:
    return dict.fromkeys(facts_of(model).tensors(), dtype) | other


def test_before_and_after(parse: Any, canonical: Any) -> None:
    model = parse(BEFORE)
    assert AssignPrecision(BF16, stored(model, BF16))(model).modified
    assert canonical(model) == canonical(parse(AFTER))


def test_a_vector_stored_wide_is_read_as_it_is(parse: Any, canonical: Any) -> None:
    model = parse(BEFORE)
    AssignPrecision(BF16, stored(model, BF16, w1=FLOAT))(model)
    assert canonical(model) == canonical(parse(WIDE_NORM))


def test_it_must_not_fire_on_a_float32_model(parse: Any, canonical: Any) -> None:
    model = parse(BEFORE)
    assert not AssignPrecision(FLOAT, stored(model, FLOAT))(model).modified
    assert canonical(model) == canonical(parse(BEFORE))


def test_a_narrow_vector_in_a_float32_model_is_widened(parse: Any) -> None:
    """The pass says so too: `modified` is true."""
    model = parse(BEFORE)
    assert AssignPrecision(FLOAT, stored(model, FLOAT, w1=BF16))(model).modified
    assert [node.op_type for node in model.graph] == ["Cast", "RMSNormalization", "Transpose", "MatMul"]


def mixer_inputs(model: ir.Model) -> list[tuple[str, ir.DataType]]:
    [node] = [node for node in model.graph if node.op_type == "Mamba2Mixer"]
    found = []
    for value in node.inputs:
        assert value is not None
        assert value.dtype is not None
        found.append(("cast" if value.producer() else "read", value.dtype))
    return found


@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_mixer_reads_its_parameters_as_stored(dtype: ir.DataType, parse: Any) -> None:
    """All in the model's dtype; length an integer; conv state narrow, SSM state wide, on both sides."""
    model = parse(MIXER)
    AssignPrecision(dtype, stored(model, dtype))(model)
    assert mixer_inputs(model) == [
        *[("read", dtype)] * 7, ("read", ir.DataType.INT64), ("read", dtype), ("read", FLOAT)
    ]  # fmt: skip
    ports = {value.name: value.dtype for value in (*model.graph.inputs, *model.graph.outputs)}
    assert ports["ssm_state.0"] == ports["ssm_state_out.0"] == ports["logits"] == FLOAT
    assert ports["conv_state.0"] == ports["conv_state_out.0"] == dtype


def test_per_head_parameters_stay_wide_where_all_are_stored_wide(parse: Any) -> None:
    model = parse(MIXER)
    AssignPrecision(BF16, stored(model, BF16, w3=FLOAT, w4=FLOAT, w5=FLOAT))(model)
    assert mixer_inputs(model)[3:6] == [("read", FLOAT)] * 3


def test_per_head_parameters_are_widened_where_some_are(parse: Any) -> None:
    """The contract has one dtype for the three."""
    model = parse(MIXER)
    AssignPrecision(BF16, stored(model, BF16, w4=FLOAT))(model)
    assert mixer_inputs(model)[3:6] == [("cast", FLOAT), ("read", FLOAT), ("cast", FLOAT)]


def test_channel_parameters_follow_the_activations(parse: Any) -> None:
    model = parse(MIXER)
    AssignPrecision(BF16, stored(model, BF16, w2=FLOAT, w6=FLOAT))(model)
    found = mixer_inputs(model)
    assert [found[index] for index in (1, 2, 6)] == [("read", BF16), ("cast", BF16), ("cast", BF16)]


def test_a_matrix_of_another_dtype_is_an_error_that_names_it(parse: Any) -> None:
    model = parse(BEFORE)
    text = r"^node \S* ?\(Transpose\): expected BFLOAT16 operands, found w2 in FLOAT\."
    with pytest.raises(InternalError, match=text):
        AssignPrecision(BF16, stored(model, BF16, w2=FLOAT))(model)


def test_a_merged_weight_has_the_one_dtype_of_its_tensors(parse: Any) -> None:
    """Whatever the input is called: dtypes are those of the tensors that the files hold."""
    model = parse(BEFORE)
    facts_of(model).weights["w2"] = Weight((*Weight.of("q", (2, 3)).parts, *Weight.of("k", (3, 3)).parts))
    types = {"w1": BF16, "q": BF16, "k": BF16}
    with pytest.raises(
        InternalError, match=r"^weight w2: expected tensors stored in one dtype, found q in BFLOAT16, k in "
    ):
        AssignPrecision(BF16, types | {"k": FLOAT})(model)
    AssignPrecision(BF16, types)(model)
    assert next(v for v in model.graph.inputs if v.name == "w2").dtype == BF16


def test_it_must_not_fire_twice(parse: Any) -> None:
    model = parse(BEFORE)
    types = stored(model, BF16)
    AssignPrecision(BF16, types)(model)
    with pytest.raises(
        InternalError,
        match=r"^value x: expected float32 before precision is assigned, found BFLOAT16\.",
    ):
        AssignPrecision(BF16, types)(model)


def test_weights_of_unknown_dtype_are_an_error(parse: Any) -> None:
    with pytest.raises(InternalError, match=r"^weights: expected a known dtype each, found none for \['w2'\]\."):
        AssignPrecision(BF16, {"w1": BF16})(parse(BEFORE))


@pytest.mark.parametrize(
    ("port", "text"),
    [
        ("ssm_state_out.0", r"^state ssm_state_out\.0: expected FLOAT, found BFLOAT16\."),
        ("conv_state.0", r"^state conv_state\.0: expected BFLOAT16, found FLOAT\."),
        ("logits", r"^logits: expected float32, found BFLOAT16\."),
    ],
)
def test_states_and_logits_of_the_wrong_dtype_are_an_error(port: str, text: str, parse: Any) -> None:
    model = parse(MIXER)
    each = AssignPrecision(BF16, stored(model, BF16))
    each(model)
    value = next(v for v in (*model.graph.inputs, *model.graph.outputs) if v.name == port)
    value.type = ir.TensorType(FLOAT if value.dtype == BF16 else BF16)
    with pytest.raises(InternalError, match=text):
        each.ensures(model)
