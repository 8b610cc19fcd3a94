"""Must-show 7: one fault in the text of the mixer's function body, and verification fails."""

from __future__ import annotations

import re
from typing import Any

import pytest

from elastic_export.ops.mamba2_mixer import body

NUMBERS = r"float32: .*logits"
ALL = ("bf16", "fp16", "fp32")
REVERSED = (
    "weight_forward = Transpose <perm = [2, 1, 0]> (conv_weight)",
    "backward = Constant <value_ints = [3, 2, 1, 0]> ()",
    "weight_t = Gather (weight_forward, backward)",
)
#: What stood before the call is lost after the second chunk.
NEAR = (
    "three = Constant <value_int = 3> ()",
    "twice = Add (number_to_, number_to_)",
    "near = Less (twice, three)",
    "near_f = Cast <to = 1> (near)",
    "first_near = Mul (near_f, from_first)",
    "near_all = Add (from_chunks, first_near)",
    "S_in_flat = Slice (near_all, v0, chunks, v3)",
)


def line(text: str, name: str, *instead: str) -> str:
    """The body with other lines where `name` is made."""
    pattern = re.compile(rf"^  {re.escape(name)} = .*$", re.MULTILINE)
    assert len(pattern.findall(text)) == 1, name
    return pattern.sub(lambda _: "\n".join(f"  {new}" for new in instead), text)


def operands(text: str, name: str) -> str:
    """What follows `name = ` in the body."""
    (found,) = re.findall(rf"^  {re.escape(name)} = (.*)$", text, re.MULTILINE)
    return str(found)


def narrowed(text: str, name: str, to: int) -> str:
    """`name` rounded once."""
    exact = f"exact_{name} = {operands(text, name)}"
    return line(
        text,
        name,
        exact,
        f"narrow_{name} = Cast <to = {to}> (exact_{name})",
        f"{name} = Cast <to = 1> (narrow_{name})",
    )


def b_and_c_swapped(text: str, to: int) -> str:
    return text.replace("x_flat, B_flat, C_flat =", "x_flat, C_flat, B_flat =")


def d_skip_forgotten(text: str, to: int) -> str:
    return line(text, "y_block", "y_block = Identity (y_scan)")


def dt_summed_narrow(text: str, to: int) -> str:
    return line(text, "s", "s_narrow = Add (dt_raw, dt_bias)", "s = Cast <to = 1> (s_narrow)")


def dt_rounded(text: str, to: int) -> str:
    return narrowed(text, "dt_clamped", to)


def decay_rounded(text: str, to: int) -> str:
    return narrowed(text, "A_exp", to)


def state_rounded(text: str, to: int) -> str:
    return narrowed(text, "S_final", to)


def state_between_chunks_rounded(text: str, to: int) -> str:
    return narrowed(text, "U", to)


def convolution_in_the_narrow_type(text: str, to: int) -> str:
    return narrowed(text, "xBC", to)


def gate_computed_narrow(text: str, to: int) -> str:
    narrow = ["gate_n = Sigmoid (z_raw)", "silu_n = Mul (z_raw, gate_n)", "silu = Cast <to = 1> (silu_n)"]
    return line(text, "silu", *narrow)


def norm_weight_multiplied_narrow(text: str, to: int) -> str:
    return narrowed(text, "normed_flat", to)


def a_without_its_sign(text: str, to: int) -> str:
    return text.replace("= Neg (A_exp)", "= Identity (A_exp)")


def norm_over_all_channels(text: str, to: int) -> str:
    return line(text, "norm_shape", "norm_shape = Concat <axis = 0> (v0, v0, v1, last)")


def gate_after_the_norm(text: str, to: int) -> str:
    text = line(text, "gated", "gated = Identity (y_real)")
    return line(text, "scaled", "scaled_ = Mul (normed_flat, norm_f)", "scaled = Mul (scaled_, silu)")


def no_gate(text: str, to: int) -> str:
    return line(text, "gated", "gated = Identity (y_real)")


def no_time_step_limit(text: str, to: int) -> str:
    return line(text, "dt_clamped", "dt_clamped = Identity (softplus)")


def relu_instead_of_softplus(text: str, to: int) -> str:
    return line(text, "softplus", "softplus = Identity (s_relu)")


def no_bias_of_the_time_step(text: str, to: int) -> str:
    return line(text, "s", "s = Identity (dt_f)")


def no_bias_of_the_convolution(text: str, to: int) -> str:
    return line(text, "conv_0", "conv_0 = Constant <value_float = 0.0> ()")


def no_silu_of_the_convolution(text: str, to: int) -> str:
    return line(text, "xBC", "xBC = Identity (conv_out)")


def taps_reversed(text: str, to: int) -> str:
    return line(text, "weight_t", *REVERSED)


def padding_in_the_conv_state(text: str, to: int) -> str:
    return line(text, "state_rows", "nothing = Mul (length_, v0)", "all_rows = Add (nothing, T)",
                "state_rows = Add (all_rows, taps)")  # fmt: skip


def conv_state_one_row_early(text: str, to: int) -> str:
    return line(text, "state_rows", "one_less = Sub (length_, v1)", "not_below = Max (one_less, v0)",
                "state_rows = Add (not_below, taps)")  # fmt: skip


def padding_in_the_ssm_state(text: str, to: int) -> str:
    return line(text, "dt_real", "dt_real = Identity (dt_clamped)")


def one_padding_token_in_the_ssm_state(text: str, to: int) -> str:
    return line(text, "valid", operands_with(text, "valid", "Less ", "LessOrEqual "))


def causal_mask_off_by_one(text: str, to: int) -> str:
    return line(text, "causal", operands_with(text, "causal", "GreaterOrEqual", "Greater"))


def operands_with(text: str, name: str, old: str, new: str) -> str:
    found = operands(text, name)
    assert old in found
    return f"{name} = {found.replace(old, new)}"


def entering_state_forgotten(text: str, to: int) -> str:
    return line(text, "y_scan", "y_scan = Identity (y_inside)")


def state_of_the_last_chunk_only(text: str, to: int) -> str:
    return line(text, "S_end", "S_end = Gather <axis = 3> (from_chunks, chunks)")


def chunks_pass_no_state(text: str, to: int) -> str:
    return line(text, "S_in_flat", "S_in_flat = Slice (from_first, v0, chunks, v3)")


def chunks_pass_to_the_next_only(text: str, to: int) -> str:
    return line(text, "S_in_flat", *NEAR)


FAULTS: list[tuple[Any, ...]] = [
    (b_and_c_swapped,),
    (d_skip_forgotten,),
    (dt_summed_narrow, r"float32: .*ssm_state\.\d", ("bf16", "fp16")),
    (dt_rounded, r"float32: .*ssm_state\.\d|^error: model\.onnx", ALL),
    (decay_rounded, r"float32: .*(ssm_state\.\d|logits)"),
    (state_rounded, r"float32: .*ssm_state\.\d", ALL),
    (state_between_chunks_rounded, r"float32: .*ssm_state\.\d"),
    (convolution_in_the_narrow_type,),
    (gate_computed_narrow,),
    (norm_weight_multiplied_narrow,),
    (a_without_its_sign,),
    (norm_over_all_channels,),
    (gate_after_the_norm,),
    (no_gate,),
    (no_time_step_limit,),
    (relu_instead_of_softplus,),
    (no_bias_of_the_time_step,),
    (no_bias_of_the_convolution,),
    (no_silu_of_the_convolution,),
    (taps_reversed,),
    (padding_in_the_conv_state, r"float32: .*conv_state\.\d"),
    (conv_state_one_row_early, r"float32: .*conv_state\.\d"),
    (padding_in_the_ssm_state, r"float32: .*ssm_state\.\d"),
    (one_padding_token_in_the_ssm_state, r"float32: .*ssm_state\.\d"),
    (causal_mask_off_by_one,),
    (entering_state_forgotten,),
    (state_of_the_last_chunk_only, r"float32: .*ssm_state\.\d"),
    (chunks_pass_no_state,),
    (chunks_pass_to_the_next_only,),
]


def test_a_fault_in_the_body_is_caught(
    compiled: Any,
    outcome: Any,
    narrow_type: Any,
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
    expected: str,
    precision: str,
    head_dim: int,
) -> None:
    model, text = compiled(precision, head_dim=head_dim), body._BODY
    changed = fault(text, narrow_type(precision))
    assert changed != text
    with monkeypatch.context() as patch:
        patch.setattr(body, "_BODY", changed)
        emitted = model.compile()
    found = outcome(model, emitted)
    assert re.search(expected, found), found
