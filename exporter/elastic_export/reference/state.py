"""The explicit state of a model: what a call takes and gives besides tokens and logits."""

from __future__ import annotations

import torch
from torch import Tensor

from elastic_export.checkpoint.architecture import Architecture
from elastic_runtime.interface import StatePort, state_ports

State = dict[str, Tensor]
"""Input name of the interface (`conv_state.0`, …) -> tensor."""


def state_ports_of(model: Architecture, dtype: str) -> tuple[StatePort, ...]:
    """The state ports of a model in `dtype` (`float32`, `float16`, `bfloat16`)."""
    mamba = [
        (model.conv_kernel, model.conv_channels(i), heads, model.mamba_head_dim, model.ssm_state)
        for i, heads in enumerate(model.mamba_heads)
    ]
    attention = [(model.kv_heads, model.attention_head_dim)] * model.pattern.count("*")
    return state_ports(dtype, mamba=mamba, attention=attention)


def empty_state(model: Architecture, batch: int, max_context: int, dtype: torch.dtype, device: str = "cpu") -> State:
    """The state of a new sequence: all zeros, every tensor in `dtype`.

    The reference keeps SSM states in its own arithmetic dtype (float32 or float64); it never narrows them.
    """
    sizes = {"B": batch, "S": max_context}
    return {
        port.name: torch.zeros([d if isinstance(d, int) else sizes[d] for d in port.shape], dtype=dtype, device=device)
        for port in state_ports_of(model, "float32")
    }
