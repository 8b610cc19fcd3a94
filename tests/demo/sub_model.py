"""Sub-models over the parent's parameters, for training: sliced, not masked, so that a small one costs little.

A sub-model is cut out of the parent's tensors at every call by the same index runs that the product slices with, so
gradients arrive in the parent; what it computes are the equations of the product's reference, without states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.attention import ATTENTION
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import sub_model_name, tensor_runs
from elastic_export.layers.mamba2 import MAMBA2
from elastic_export.layers.mlp import MLP
from elastic_export.ops.mamba2_mixer.equations import MixerParameters, MixerSizes, mamba2_mixer
from elastic_export.runs import Runs, positions

Parameters = Mapping[str, Tensor]
#: Hears of what a layer computed on the way: its index in the parent, what it is, the values [B, T, …].
Tap = Callable[[int, str, Tensor], None]


def _no_tap(_: int, __: str, ___: Tensor) -> None:
    pass


class SubModel:
    """A budget's sub-model.

    Args:
        parent: the parent's architecture.
        budget: what is kept of it; None: all.
    """

    def __init__(self, parent: Architecture, budget: Budget | None = None) -> None:
        self.budget = budget or Budget.full(parent, "full")
        self.parent, self.arch = parent, self.budget.architecture(parent)
        self._cuts = {
            name: (sub_model_name(name, parent, self.budget), [_Cut(runs) for runs in axes])
            for name, axes in tensor_runs(parent, self.budget).items()
        }

    def cut(self, parameters: Parameters) -> dict[str, Tensor]:
        """The sub-model's own tensors, under its own names, out of the parent's."""
        cut: dict[str, Tensor] = {}
        for name, (own, axes) in self._cuts.items():
            tensor = parameters[name]
            for dim, axis in enumerate(axes):
                tensor = axis(tensor, dim)
            cut[str(own)] = tensor
        return cut

    def __call__(self, parameters: Parameters, ids: Tensor, tap: Tap = _no_tap) -> Tensor:
        """Logits [B, T, V], float32, of token ids [B, T] that each begin a sequence."""
        own = self.cut(parameters)
        x = F.embedding(ids, own["backbone.embeddings.weight"])
        for layer, at in zip(self.arch.layers(), self.budget.kept_layers(self.parent), strict=True):
            lead = f"backbone.layers.{layer.index}"
            weights = {t.name: own[f"{lead}.mixer.{t.name}"] for t in layer.kind.tensors}
            h = rms_norm(x, own[f"{lead}.norm.weight"], self.arch.epsilon)
            tap(at, "norm", h)
            x = x + _MIXERS[layer.kind](self.arch, weights, h, lambda what, value, at=at: tap(at, what, value)).float()
        h = rms_norm(x, own["backbone.norm_f.weight"], self.arch.epsilon)
        tap(len(self.parent.pattern), "norm", h)
        return F.linear(h, own["lm_head.weight"]).float()


class _Cut:
    """What is kept of one axis of a tensor."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._index = None if len(runs) == 1 else torch.from_numpy(positions(runs))

    def __call__(self, tensor: Tensor, dim: int) -> Tensor:
        if self._index is not None:
            self._index = self._index.to(tensor.device)  # moved once
            return tensor.index_select(dim, self._index)
        start, count = self._runs[0]
        return tensor.narrow(dim, start, count)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(mean(x²) + ε), times the weight: [..., d], float32."""
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * weight


Weights = Mapping[str, Tensor]
_Tap = Callable[[str, Tensor], None]


def _mamba2(arch: Architecture, weights: Weights, h: Tensor, tap: _Tap) -> Tensor:
    projected = F.linear(h, weights["in_proj.weight"])
    with torch.autocast(
        h.device.type, enabled=False
    ):  # products inside a chunk have small sums and large cancellations
        (batch, tokens), device = h.shape[:2], h.device
        conv, heads = weights["conv1d.weight"], len(weights["A_log"])
        y, _, _ = mamba2_mixer(
            projected.float(),
            MixerParameters(*(weights[tensor.name] for tensor in MAMBA2.tensors if tensor.operand)),
            None,
            torch.full((batch,), tokens, device=device),
            torch.zeros(batch, conv.shape[2] - 1, conv.shape[0], device=device),
            torch.zeros(batch, heads, arch.mamba_head_dim, arch.ssm_state, device=device),
            MixerSizes(arch.ssm_groups, arch.mamba_head_dim, arch.ssm_state, arch.epsilon, *arch.time_step_limit),
        )
    inner = heads * arch.mamba_head_dim
    tap("heads", projected[..., inner : 2 * inner])  # x of z | x | B | C | dt
    return F.linear(y, weights["out_proj.weight"])


def _mlp(_: Architecture, weights: Weights, h: Tensor, tap: _Tap) -> Tensor:
    up = F.linear(h, weights["up_proj.weight"])
    tap("ffn", up)
    return F.linear(torch.relu(up).square(), weights["down_proj.weight"])


def _attention(arch: Architecture, weights: Weights, h: Tensor, tap: _Tap) -> Tensor:
    size = arch.attention_head_dim
    q, k, v = (F.linear(h, weights[f"{name}_proj.weight"]).unflatten(-1, (-1, size)).transpose(1, 2) for name in "qkv")
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2).flatten(2)
    tap("queries", y)
    return F.linear(y, weights["o_proj.weight"])


_MIXERS = {MAMBA2: _mamba2, MLP: _mlp, ATTENTION: _attention}


def initial_parameters(arch: Architecture, seed: int) -> dict[str, Tensor]:
    """Where training begins: dt and A as Mamba-2 has them (arXiv 2405.21060, section 9), matrices that keep the size of
    what they are given, those that end a layer smaller by the square root of the depth.
    """
    random = torch.Generator().manual_seed(seed)

    def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
        last = name.removeprefix("backbone.").rsplit("mixer.", 1)[-1]
        if last == "A_log":
            return torch.log(1 + 15 * torch.rand(shape, generator=random))
        if last == "dt_bias":
            step = torch.exp(math.log(1e-3) + torch.rand(shape, generator=random) * math.log(100))
            return step + torch.log(-torch.expm1(-step))  # the inverse of softplus
        if last == "D" or last.endswith(("norm.weight", "norm_f.weight")):
            return torch.ones(shape)
        if last == "conv1d.bias":
            return torch.zeros(shape)
        if last == "conv1d.weight":
            return torch.rand(shape, generator=random) - 0.5
        spread = {"embeddings.weight": 0.5, "lm_head.weight": 0.02}.get(last, shape[-1] ** -0.5)
        ends = last in ("out_proj.weight", "down_proj.weight", "o_proj.weight")
        return torch.randn(shape, generator=random) * spread * (0.5 * len(arch.pattern) ** -0.5 if ends else 1.0)

    return {name: tensor(name, shape) for name, shape in arch.tensor_shapes().items()}
