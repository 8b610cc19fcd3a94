"""The explicit state of a model: what a call takes and gives besides tokens and logits."""

from __future__ import annotations

import torch
from torch import Tensor

from elastic_export.layers.architecture import Architecture, Layer
from elastic_export.layers.kind import State as StateSpec
from elastic_runtime.format.interface import Dim, StatePort

State = dict[str, Tensor]
"""Input name of the interface (`conv_state.0`, …) -> tensor."""


def state_ports_of(model: Architecture, dtype: str) -> tuple[StatePort, ...]:
    """The state ports of a model in `dtype` (`float32`, `float16`, `bfloat16`)."""
    return tuple(
        StatePort(
            f"{state.kind}.{layer.ordinal}",
            "float32" if state.wide else dtype,
            _shape(model, state, layer),
            state.kind,
            layer.ordinal,
        )
        for state, layer in model.states()
    )


def _shape(model: Architecture, state: StateSpec, layer: Layer) -> tuple[Dim, ...]:
    return ("B", *("S" if axis is None else model.size(axis, layer.ordinal) for axis in state.axes))


def empty_state(model: Architecture, batch: int, max_context: int, dtype: torch.dtype, device: str = "cpu") -> State:
    """The state of a new sequence: all zeros, every tensor in `dtype`.

    The reference keeps SSM states in its own arithmetic dtype (float32 or float64); it never narrows them.
    """
    sizes = {"B": batch, "S": max_context}
    return {
        port.name: torch.zeros([d if isinstance(d, int) else sizes[d] for d in port.shape], dtype=dtype, device=device)
        for port in state_ports_of(model, "float32")
    }


def layer_state(model: Architecture, layer: Layer, batch: int, max_context: int, dtype: torch.dtype) -> State:
    """`empty_state` of one layer; empty for most kinds."""
    sizes = {"B": batch, "S": max_context}
    return {
        f"{state.kind}.{layer.ordinal}": torch.zeros(
            [d if isinstance(d, int) else sizes[d] for d in _shape(model, state, layer)], dtype=dtype
        )
        for state in layer.kind.states
    }
