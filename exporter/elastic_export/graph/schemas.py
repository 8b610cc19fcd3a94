"""The parent graph's ops as ONNX schemas and the translations of the PyTorch ops to them.

The exporter looks a custom op up in ONNX's registry, so each is registered there; the mixer's inputs, outputs and
attributes are those of its contract plus the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import onnx
import onnxscript
import torch
from onnxscript import values

from elastic_export.reference.contract import load_contract

DOMAIN = "elastic"
_FLOATS = ["tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)"]
_ATTRIBUTE_TYPES = {"int": onnx.defs.OpSchema.AttrType.INT, "float": onnx.defs.OpSchema.AttrType.FLOAT}

#: op -> (inputs, outputs, attributes); operands of a name in `_INTEGERS` are int64, all others one float type.
_PARENT_OPS: dict[str, tuple[Sequence[str], Sequence[str], dict[str, str]]] = {
    "MaskedRMSNorm": (("x", "weight", "mask"), ("y",), {"epsilon": "float"}),
    "CachedAttention": (
        ("query", "key", "value", "key_cache", "value_cache", "position"),
        ("y", "key_cache_out", "value_cache_out"),
        {},
    ),
    "LastToken": (("x", "length"), ("y",), {}),
}
_INTEGERS = {"position", "length"}


def _schema(name: str, inputs: Sequence[str], outputs: Sequence[str], attributes: dict[str, str]) -> onnx.defs.OpSchema:
    def operand(kind: str) -> str:
        return "tensor(int64)" if kind in _INTEGERS else "T"

    parameter = onnx.defs.OpSchema.FormalParameter
    return onnx.defs.OpSchema(
        name,
        DOMAIN,
        1,
        inputs=[parameter(i, operand(i)) for i in inputs],
        outputs=[parameter(o, operand(o)) for o in outputs],
        type_constraints=[("T", _FLOATS, "activations, weights and states of the parent graph")],
        attributes=[onnx.defs.OpSchema.Attribute(a, _ATTRIBUTE_TYPES[t], required=True) for a, t in attributes.items()],
    )


@cache
def elastic_opset() -> values.Opset:
    """The parent graph's ops, registered with ONNX at the first call."""
    mixer = load_contract("mamba2_mixer")
    ops = _PARENT_OPS | {
        "MaskedMamba2Mixer": (
            (*(i.name for i in mixer.inputs), "channel_mask"),
            tuple(o.name for o in mixer.outputs),
            mixer.attributes,
        )
    }
    for name, (inputs, outputs, attributes) in ops.items():
        if not onnx.defs.has(name, DOMAIN):
            onnx.defs.register_schema(_schema(name, inputs, outputs, attributes))
    return values.Opset(DOMAIN, 1)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """PyTorch op -> function that records the ONNX node, for `torch.onnx.export`."""
    op, standard = elastic_opset(), onnxscript.opset23  # these two ops are the same in the opset of the graph

    # fmt: off
    def mixer(  # type: ignore[no-untyped-def]
        projected, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, length, conv_state, ssm_state, channel_mask,
        n_groups: int, head_dim: int, state_size: int, epsilon: float, time_step_min: float, time_step_max: float,
    ):
        return op.MaskedMamba2Mixer(
            projected, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, length, conv_state, ssm_state,
            channel_mask, n_groups=n_groups, head_dim=head_dim, state_size=state_size, epsilon=epsilon,
            time_step_min=time_step_min, time_step_max=time_step_max,
        )
    # fmt: on

    def norm(x, weight, mask, epsilon: float):  # type: ignore[no-untyped-def]
        return op.MaskedRMSNorm(x, weight, mask, epsilon=epsilon)

    def attention(query, key, value, key_cache, value_cache, position):  # type: ignore[no-untyped-def]
        return op.CachedAttention(query, key, value, key_cache, value_cache, position)

    def last(x, length):  # type: ignore[no-untyped-def]
        return op.LastToken(x, length)

    def linear(x, weight, bias=None):  # type: ignore[no-untyped-def]
        """One canonical form whatever the rank of x; the passes choose the shape of the matmul later."""
        assert bias is None
        return standard.MatMul(x, standard.Transpose(weight, perm=[1, 0]))

    elastic = torch.ops.elastic
    return {
        torch.ops.aten.linear.default: linear,
        elastic.masked_mamba2_mixer.default: mixer,
        elastic.masked_rms_norm.default: norm,
        elastic.cached_attention.default: attention,
        elastic.last_token.default: last,
    }
