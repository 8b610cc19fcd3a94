"""The mathematics of each layer kind: what stands between a layer's norm and the residual stream.

A mixer's parameters are the tensors that its kind lists, under the names of the checkpoint.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elastic_export.layers.architecture import Architecture, Layer
from elastic_export.layers.attention import ATTENTION
from elastic_export.layers.axis import shape_of
from elastic_export.layers.kind import LayerKind
from elastic_export.layers.mamba2 import MAMBA2
from elastic_export.layers.mlp import MLP
from elastic_export.ops.cached_attention.torch_op import cached_attention
from elastic_export.ops.mamba2_mixer.torch_op import masked_mamba2_mixer
from elastic_export.reference.call import Call


class Mixer(nn.Module, ABC):
    """The mixer of one layer; `layer` says which.

    `units` are those of the matrices whose products are rounded before their rows are scaled, by the matrix's name
    (`Call.product`).
    """

    def __init__(self, arch: Architecture, layer: Layer) -> None:
        super().__init__()
        self.units: dict[str, Tensor] = {}
        self.arch, self.index, self.ordinal = arch, layer.index, layer.ordinal
        for tensor in layer.kind.tensors:
            declare(self, tensor.name, shape_of(tensor.axes, arch, layer.ordinal))

    def linear(self, x: Tensor, name: str, call: Call) -> Tensor:
        """x [B, T, in] times the matrix `<name>.weight` [out, in], rounded as it is stored: [B, T, out]."""
        return call.product(multiply(x, self.get_parameter(f"{name}.weight")), self.units.get(f"{name}.weight"))

    def mask(self, name: str, call: Call) -> Tensor:
        """The budget's mask of this layer by that name."""
        return call.masks[f"{name}.{self.index}"]

    @abstractmethod
    def forward(self, x: Tensor, call: Call) -> Tensor:
        """[B, T, d] -> [B, T, d]; new states go into `call.new_state`."""


class Mamba2(Mixer):
    """Mamba-2: in_proj, the op `elastic::Mamba2Mixer`, out_proj."""

    def forward(self, x: Tensor, call: Call) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        projected = self.linear(x, "in_proj", call) * self.mask("projected", call)
        return self.linear(call.round(call.each(self._scanned, projected)), "out_proj", call)

    def _scanned(self, call: Call, projected: Tensor) -> Tensor:
        arch, conv, ssm = self.arch, f"conv_state.{self.ordinal}", f"ssm_state.{self.ordinal}"
        y: Tensor
        y, call.new_state[conv], call.new_state[ssm] = masked_mamba2_mixer(
            projected,
            *(self.get_parameter(tensor.name) for tensor in MAMBA2.tensors if tensor.operand),
            call.length,
            call.state[conv],
            call.state[ssm],
            self.mask("channels", call),
            arch.ssm_groups,
            arch.mamba_head_dim,
            arch.ssm_state,
            arch.epsilon,
            *arch.time_step_limit,
        )
        return y


class Mlp(Mixer):
    """down(relu(up x)²)."""

    def forward(self, x: Tensor, call: Call) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        h = torch.relu(self.linear(x, "up_proj", call))
        return self.linear(call.round(h * h) * self.mask("ffn", call), "down_proj", call)


class Attention(Mixer):
    """Causal grouped-query attention over a cache; no position embedding."""

    def forward(self, x: Tensor, call: Call) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        q, k, v = (self.linear(x, name, call) for name in ("q_proj", "k_proj", "v_proj"))
        y = call.each(self._attended, q, k, v)
        return self.linear(call.round(y) * self.mask("heads", call), "o_proj", call)

    def _attended(self, call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        arch, keys, values = self.arch, f"key_cache.{self.ordinal}", f"value_cache.{self.ordinal}"
        y: Tensor
        y, call.new_state[keys], call.new_state[values] = cached_attention(
            q,
            k,
            v,
            call.state[keys],
            call.state[values],
            call.position,
            arch.attention_heads,
            arch.kv_heads,
            arch.attention_head_dim,
            1 / math.sqrt(arch.attention_head_dim),
        )
        return y


MIXERS: dict[LayerKind, type[Mixer]] = {MAMBA2: Mamba2, MLP: Mlp, ATTENTION: Attention}


def declare(module: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Give a module an empty parameter under a dotted name, with modules between as its parts say."""
    *path, last = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    module.register_parameter(last, nn.Parameter(torch.empty(shape), requires_grad=False))


_CONVERTED = 1 << 22  # elements at a time: 32 MiB of float64, where a whole matrix of a 12B takes 840


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., in] times weight [out, in]: [..., out] in the dtype of x; another weight is converted block by block."""
    if weight.dtype == x.dtype:
        return F.linear(x, weight)
    rows = max(1, _CONVERTED // weight.shape[1])
    converted = torch.empty(
        min(rows, len(weight)), weight.shape[1], dtype=x.dtype, device=x.device
    )  # one for all: pages cost time
    return torch.cat([F.linear(x, converted[: len(block)].copy_(block)) for block in torch.split(weight, rows)], dim=-1)
