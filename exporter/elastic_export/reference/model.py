"""The elastic parent: a Nemotron-H model whose budgets are masks, prefill and decode through one forward.

Block: x + mixer(RMSNorm(x)), arXiv 2504.03624 (Nemotron-H); elastic masks, arXiv 2511.16664 (Nemotron-Elastic).
Modules are named so that parameter names equal the checkpoint's tensor names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elastic_export.layers.architecture import Architecture, Layer
from elastic_export.layers.axis import shape_of
from elastic_export.layers.kind import EMBEDDINGS, FINAL_NORM, HEAD, LAYER_NORM
from elastic_export.ops.last_token.torch_op import last_token
from elastic_export.ops.masked_rms_norm.torch_op import masked_rms_norm
from elastic_export.reference.call import Call, Round
from elastic_export.reference.masks import Masks
from elastic_export.reference.mixers import MIXERS, declare, multiply
from elastic_export.reference.state import State


def _exact(x: Tensor) -> Tensor:
    return x


def rounding_to(storage: torch.dtype) -> Round:
    """Rounds to a narrow dtype and back: arithmetic stays wide, what is stored between ops is narrow."""
    return lambda x: x.to(storage).to(x.dtype)


class Block(nn.Module):
    """One layer of the residual stream."""

    def __init__(self, arch: Architecture, layer: Layer) -> None:
        super().__init__()
        self.index, self.epsilon = layer.index, arch.epsilon
        declare(self, LAYER_NORM.name, shape_of(LAYER_NORM.axes, arch))
        self.mixer = MIXERS[layer.kind](arch, layer)

    def forward(self, x: Tensor, call: Call) -> Tensor:
        """[B, T, d] -> [B, T, d]; a skipped layer's branch mask is zero, and it is the identity."""
        return call.round(x + self.branch(x, call))

    def branch(self, x: Tensor, call: Call) -> Tensor:
        """What the layer adds to the residual stream: mixer(RMSNorm(x)), masked."""
        h = masked_rms_norm(x, self.get_parameter(LAYER_NORM.name), call.masks["hidden"], self.epsilon)
        masked: Tensor = self.mixer(call.round(h), call) * call.masks[f"branch.{self.index}"]
        return masked


class Backbone(nn.Module):
    """Embedding, blocks and the final norm's weight."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        declare(self, EMBEDDINGS.name, shape_of(EMBEDDINGS.axes, arch))
        self.layers = nn.ModuleList(Block(arch, layer) for layer in arch.layers())
        declare(self, FINAL_NORM.name, shape_of(FINAL_NORM.axes, arch))


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
        declare(self, HEAD.name, shape_of(HEAD.axes, arch))

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
        return F.embedding(input_ids, self.body.get_parameter(EMBEDDINGS.name)) * call.masks["hidden"]

    def head(self, x: Tensor, call: Call) -> Tensor:
        """The residual stream [B, T, d] -> logits [B, V] or [B, T, V]."""
        if not self.every_token:
            x = last_token(x, call.length)
        return call.round(multiply(self.final_norm(x, call), self.get_parameter(HEAD.name)))

    def final_norm(self, x: Tensor, call: Call) -> Tensor:
        """What the head's matrix is multiplied with, of x's shape."""
        weight = self.body.get_parameter(FINAL_NORM.name)
        return call.round(masked_rms_norm(x, weight, call.masks["hidden"], self.arch.epsilon))
