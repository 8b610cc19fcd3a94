"""The elastic parent: a Nemotron-H model whose budgets are masks, prefill and decode through one forward.

Block: x + mixer(RMSNorm(x)), arXiv 2504.03624 (Nemotron-H); elastic masks, arXiv 2511.16664 (Nemotron-Elastic).
Modules are named so that parameter names equal the checkpoint's tensor names.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elastic_export.checkpoint.architecture import Architecture
from elastic_export.reference import ops
from elastic_export.reference.masks import Masks
from elastic_export.reference.state import State

Round = Callable[[Tensor], Tensor]


def _exact(x: Tensor) -> Tensor:
    return x


def rounding_to(storage: torch.dtype) -> Round:
    """Rounds to a narrow dtype and back: arithmetic stays wide, what is stored between ops is narrow."""
    return lambda x: x.to(storage).to(x.dtype)


class _Weight(nn.Module):
    """A tensor named `<module>.weight` (and `.bias`)."""

    def __init__(self, *shape: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*shape), requires_grad=False)
        if bias:
            self.bias = nn.Parameter(torch.empty(shape[0]), requires_grad=False)


class Mamba2(nn.Module):
    """Mamba-2 mixer: in_proj, the op `elastic::Mamba2Mixer`, out_proj."""

    def __init__(self, arch: Architecture, index: int, ordinal: int) -> None:
        super().__init__()
        self.arch, self.index, self.ordinal = arch, index, ordinal
        d, di, heads = arch.hidden_size, arch.inner_size(ordinal), arch.mamba_heads[ordinal]
        channels = arch.conv_channels(ordinal)
        self.in_proj = _Weight(arch.projected_size(ordinal), d)
        self.conv1d = _Weight(channels, 1, arch.conv_kernel, bias=True)
        self.A_log = nn.Parameter(torch.empty(heads), requires_grad=False)
        self.D = nn.Parameter(torch.empty(heads), requires_grad=False)
        self.dt_bias = nn.Parameter(torch.empty(heads), requires_grad=False)
        self.norm = _Weight(di)
        self.out_proj = _Weight(d, di)

    def forward(self, x: Tensor, call: Call) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        arch, conv, ssm = self.arch, f"conv_state.{self.ordinal}", f"ssm_state.{self.ordinal}"
        projected = call.round(F.linear(x, self.in_proj.weight)) * call.masks[f"projected.{self.index}"]
        y, call.new_state[conv], call.new_state[ssm] = ops.masked_mamba2_mixer(
            projected,
            self.conv1d.weight,
            self.conv1d.bias,
            self.A_log,
            self.D,
            self.dt_bias,
            self.norm.weight,
            call.length,
            call.state[conv],
            call.state[ssm],
            call.masks[f"channels.{self.index}"],
            arch.ssm_groups,
            arch.mamba_head_dim,
            arch.ssm_state,
            arch.epsilon,
            *arch.time_step_limit,
        )
        return call.round(F.linear(call.round(y), self.out_proj.weight))


class Mlp(nn.Module):
    """down(relu(up x)²)."""

    def __init__(self, arch: Architecture, index: int, ordinal: int) -> None:
        super().__init__()
        self.index = index
        self.up_proj = _Weight(arch.ffn_sizes[ordinal], arch.hidden_size)
        self.down_proj = _Weight(arch.hidden_size, arch.ffn_sizes[ordinal])

    def forward(self, x: Tensor, call: Call) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        h = torch.relu(call.round(F.linear(x, self.up_proj.weight)))
        return call.round(F.linear(call.round(h * h) * call.masks[f"ffn.{self.index}"], self.down_proj.weight))


class Attention(nn.Module):
    """Causal grouped-query attention over a cache; no position embedding."""

    def __init__(self, arch: Architecture, index: int, ordinal: int) -> None:
        super().__init__()
        self.index, self.ordinal = index, ordinal
        q, kv = arch.attention_heads * arch.attention_head_dim, arch.kv_heads * arch.attention_head_dim
        self.q_proj, self.k_proj = _Weight(q, arch.hidden_size), _Weight(kv, arch.hidden_size)
        self.v_proj, self.o_proj = _Weight(kv, arch.hidden_size), _Weight(arch.hidden_size, q)

    def forward(self, x: Tensor, call: Call) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        keys, values = f"key_cache.{self.ordinal}", f"value_cache.{self.ordinal}"
        q, k, v = (call.round(F.linear(x, p.weight)) for p in (self.q_proj, self.k_proj, self.v_proj))
        y, call.new_state[keys], call.new_state[values] = ops.cached_attention(
            q, k, v, call.state[keys], call.state[values], call.position
        )
        return call.round(F.linear(call.round(y) * call.masks[f"heads.{self.index}"], self.o_proj.weight))


_MIXERS: dict[str, Callable[[Architecture, int, int], nn.Module]] = {"M": Mamba2, "-": Mlp, "*": Attention}


class Call:
    """What one forward carries through the layers besides the residual stream.

    With `rounding` to a narrow dtype, what is stored between ops is rounded: the arithmetic of a model whose matmuls
    accumulate wide and whose activations are narrow. Weights are expected to be rounded already.
    """

    def __init__(self, position: Tensor, length: Tensor, state: State, masks: Masks, rounding: Round = _exact) -> None:
        self.position, self.length, self.state, self.masks, self.round = position, length, state, masks, rounding
        self.new_state: State = {}


class Block(nn.Module):
    """One layer of the residual stream."""

    def __init__(self, arch: Architecture, index: int, kind: str, ordinal: int) -> None:
        super().__init__()
        self.index, self.epsilon = index, arch.epsilon
        self.norm = _Weight(arch.hidden_size)
        self.mixer = _MIXERS[kind](arch, index, ordinal)

    def forward(self, x: Tensor, call: Call) -> Tensor:
        """[B, T, d] -> [B, T, d]; a skipped layer's branch mask is zero, and it is the identity."""
        return call.round(x + self.branch(x, call))

    def branch(self, x: Tensor, call: Call) -> Tensor:
        """What the layer adds to the residual stream: mixer(RMSNorm(x)), masked."""
        h = ops.masked_rms_norm(x, self.norm.weight, call.masks["hidden"], self.epsilon)
        masked: Tensor = self.mixer(call.round(h), call) * call.masks[f"branch.{self.index}"]
        return masked


class Backbone(nn.Module):
    """Embedding, blocks and the final norm's weight."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.embeddings = _Weight(arch.vocab_size, arch.hidden_size)
        self.layers = nn.ModuleList(Block(arch, *layer) for layer in arch.layers())
        self.norm_f = _Weight(arch.hidden_size)


class ElasticModel(nn.Module):
    """The masked parent.

    Args:
        arch: the parent's architecture.
        prefix: name of the backbone in the checkpoint, `backbone` or `model`.
        every_token: logits of all T tokens instead of the last real one.
    """

    def __init__(self, arch: Architecture, prefix: str = "backbone", *, every_token: bool = False) -> None:
        super().__init__()
        self.arch, self.prefix, self.every_token = arch, prefix, every_token
        self.add_module(prefix, Backbone(arch))
        self.lm_head = _Weight(arch.vocab_size, arch.hidden_size)

    def forward(
        self, input_ids: Tensor, position: Tensor, length: Tensor, state: State, masks: Masks
    ) -> tuple[Tensor, State]:
        """One call.

        Args:
            input_ids: int64 [B, T]; padding is any valid id.
            position: int64 [B], tokens already in the state.
            length: int64 [B], real tokens of each row, 0..T.
            state: see `empty_state`; not modified.
            masks: see `elastic_export.reference.masks`.

        Returns:
            Logits [B, V] of the last real token ([B, T, V] with `every_token`), and the new state.
        """
        call = Call(position, length, state, masks)
        x = self.embed(input_ids, call)
        for layer in self.body.layers:
            x = layer(x, call)
        return self.head(x, call), {name: call.new_state[name] for name in state}

    @property
    def body(self) -> Backbone:
        """Embedding, blocks and final norm, whatever the checkpoint calls them."""
        module = self.get_submodule(self.prefix)
        assert isinstance(module, Backbone)
        return module

    def embed(self, input_ids: Tensor, call: Call) -> Tensor:
        """[B, T] -> [B, T, d]."""
        return F.embedding(input_ids, self.body.embeddings.weight) * call.masks["hidden"]

    def head(self, x: Tensor, call: Call) -> Tensor:
        """The residual stream [B, T, d] -> logits [B, V] or [B, T, V]."""
        if not self.every_token:
            x = ops.last_token(x, call.length)
        x = ops.masked_rms_norm(x, self.body.norm_f.weight, call.masks["hidden"], self.arch.epsilon)
        return call.round(F.linear(call.round(x), self.lm_head.weight))
