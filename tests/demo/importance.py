"""Which channels, heads and layers matter, and the order that puts them first.

The measures of Nemotron Elastic (arXiv 2511.16664, "Importance estimation"), each a mean over tokens of training text:

    hidden channel i    |RMSNorm(x)_i|, over all norms
    FFN neuron i        |h·W_up,i|
    head channel d      sqrt(Σ_h s²_{h,d}) with s = h·W_x, of one Mamba layer
    Mamba head h        sqrt(Σ_d s²_{h,d}), inside its group: heads of another group read other B and C (Minitron-SSM,
                        arXiv 2504.11409, group-aware pruning)
    query head          size of its output, inside its KV group
    layer j             Σ (F − F₋ⱼ)² / Σ F²: F the logits, F₋ⱼ those without the layer; the least one goes first, and
                        the next is judged without those that are gone

The head channels' measure is of all channels of a head, where the paper takes those that stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from sub_model import Parameters, SubModel
from torch import Tensor

from elastic_export.layers.all_kinds import KINDS
from elastic_export.layers.architecture import Architecture, Layer
from elastic_export.layers.attention import ATTENTION, HEAD_SIZE, QUERY_HEADS
from elastic_export.layers.axis import Extent, Span
from elastic_export.layers.budget import Budget
from elastic_export.layers.kind import HIDDEN
from elastic_export.layers.mamba2 import HEAD_DIM, HEADS, MAMBA2
from elastic_export.layers.mlp import FFN, MLP

#: Of one axis, in one layer (None: in all): the old indices in their new order.
Orders = Mapping[tuple[Span, int | None], Tensor]


@torch.no_grad()
def orders(arch: Architecture, parameters: Parameters, batches: Iterable[Tensor]) -> Orders:
    """The order of every elastic axis, most important first. `batches` of token ids [B, T]."""
    total: defaultdict[tuple[int, str], Tensor] = defaultdict(lambda: torch.zeros(()))

    def tap(layer: int, what: str, value: Tensor) -> None:
        total[layer, what] = total[layer, what] + _mean_size(arch, what, value.float()).cpu()

    model = SubModel(arch)
    for ids in batches:
        model(parameters, ids, tap)
    norms = [size for (_, what), size in total.items() if what == "norm"]
    found: dict[tuple[Span, int | None], Tensor] = {((HIDDEN,), None): _descending(sum(n / n.mean() for n in norms))}
    for layer in arch.layers():
        if layer.kind is MLP:
            found[(FFN,), layer.index] = _descending(total[layer.index, "ffn"])
        elif layer.kind is ATTENTION:
            heads = _grouped(total[layer.index, "queries"], arch.kv_heads)
            found[(QUERY_HEADS, HEAD_SIZE), layer.index] = _outer(heads, torch.arange(arch.attention_head_dim))
        else:
            squares = total[layer.index, "heads"]  # [H, P]
            heads = _grouped(squares.sum(1), arch.ssm_groups)
            found[(HEADS,), layer.index] = heads
            found[(HEADS, HEAD_DIM), layer.index] = _outer(heads, _descending(squares.sum(0)))
    return found


def _mean_size(arch: Architecture, what: str, value: Tensor) -> Tensor:
    if what == "heads":
        return value.unflatten(-1, (-1, arch.mamba_head_dim)).square().flatten(0, 1).mean(0)
    if what == "queries":
        return value.unflatten(-1, (-1, arch.attention_head_dim)).square().sum(-1).flatten(0, 1).mean(0)
    return value.abs().flatten(0, -2).mean(0)


def _descending(scores: Tensor) -> Tensor:
    return scores.argsort(descending=True, stable=True)


def _grouped(scores: Tensor, groups: int) -> Tensor:
    """Most important first inside each group."""
    inside = scores.unflatten(0, (groups, -1)).argsort(dim=-1, descending=True, stable=True)
    return (torch.arange(groups)[:, None] * inside.shape[1] + inside).flatten()


def _outer(outer: Tensor, inner: Tensor) -> Tensor:
    return (outer[:, None] * len(inner) + inner).flatten()


def permuted(arch: Architecture, parameters: Parameters, order: Orders) -> dict[str, Tensor]:
    """The same function with every axis in its order."""
    result = {}
    for stored in arch.tensors():
        tensor = parameters[stored.name]
        for dim, axis in enumerate(stored.tensor.axes):
            tensor = tensor.index_select(dim, _order_of(axis, arch, stored.layer, order))
        result[stored.name] = tensor
    return result


def _order_of(axis: Extent, arch: Architecture, layer: Layer | None, order: Orders) -> Tensor:
    parts, start = [], 0
    for span in axis:
        size = arch.size((span,), layer.ordinal if layer else 0)
        index = layer.index if layer else None
        parts.append(start + order.get((span, index), order.get((span, None), torch.arange(size))))
        start += size
    return torch.cat(parts)


@torch.no_grad()
def layers_by_loss(arch: Architecture, parameters: Parameters, ids: Tensor, count: int) -> list[tuple[int, float]]:
    """The `count` layers to leave out, first the one that is missed least: (layer, normalised MSE without it and those
    before). The first and the last layer stay.
    """
    whole, gone = SubModel(arch)(parameters, ids), list[tuple[int, float]]()
    size = whole.square().sum()
    while len(gone) < count:
        skipped = {layer for layer, _ in gone}
        losses = []
        for layer in range(1, len(arch.pattern) - 1):
            if layer not in skipped:
                budget = replace(Budget.full(arch, "without"), skip_layers=tuple(sorted({*skipped, layer})))
                without = SubModel(arch, budget)(parameters, ids)
                losses.append((float((whole - without).square().sum() / size), layer))
        loss, layer = min(losses)
        gone.append((layer, loss))
    return gone


assert set(KINDS) == {MAMBA2, MLP, ATTENTION}, "a kind without a measure above"
