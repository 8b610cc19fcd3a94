"""A budget as masks: vectors of ones and zeros that are inputs of the parent, so one trace serves every budget."""

from __future__ import annotations

import torch
from torch import Tensor

from elastic_export.checkpoint.architecture import Architecture
from elastic_export.checkpoint.budget import Budget

Masks = dict[str, Tensor]
"""Name -> vector: `hidden` [d]; per layer i `branch.i` [d] (hidden mask, zero where the layer is skipped); per Mamba
layer `projected.i` [2di+2gN+H] (on z, x and dt) and `channels.i` [di]; per MLP layer `ffn.i` [f]; per attention layer
`heads.i` [q·hd]."""


def mask_sizes(parent: Architecture) -> dict[str, int]:
    """Name and length of every mask of the parent, in the order of the data's way."""
    sizes = {"hidden": parent.hidden_size}
    for index, kind, ordinal in parent.layers():
        if kind == "M":
            sizes[f"projected.{index}"] = parent.projected_size(ordinal)
            sizes[f"channels.{index}"] = parent.inner_size(ordinal)
        elif kind == "-":
            sizes[f"ffn.{index}"] = parent.ffn_sizes[ordinal]
        else:
            sizes[f"heads.{index}"] = parent.attention_heads * parent.attention_head_dim
        sizes[f"branch.{index}"] = parent.hidden_size
    return sizes


def budget_masks(parent: Architecture, budget: Budget, dtype: torch.dtype = torch.float32) -> Masks:
    """The masks of one budget. Masks of a skipped layer keep its widths; its branch mask is zero."""
    hidden = _prefix(budget.hidden_size, parent.hidden_size, dtype)
    masks: Masks = {"hidden": hidden}
    for index, kind, ordinal in parent.layers():
        if kind == "M":
            masks |= _mamba_masks(parent, budget, index, ordinal, dtype)
        elif kind == "-":
            masks[f"ffn.{index}"] = _prefix(budget.ffn_sizes[ordinal], parent.ffn_sizes[ordinal], dtype)
        else:
            masks[f"heads.{index}"] = _head_mask(parent, budget, dtype)
        masks[f"branch.{index}"] = torch.zeros_like(hidden) if index in budget.skip_layers else hidden.clone()
    return masks


def _prefix(kept: int, full: int, dtype: torch.dtype) -> Tensor:
    return (torch.arange(full) < kept).to(dtype)


def _grouped_prefix(kept: int, full: int, groups: int, dtype: torch.dtype) -> Tensor:
    """The first kept/groups of the full/groups members of each group."""
    return _prefix(kept // groups, full // groups, dtype).repeat(groups)


def _mamba_masks(parent: Architecture, budget: Budget, index: int, ordinal: int, dtype: torch.dtype) -> Masks:
    full = parent.mamba_heads[ordinal]
    heads = _grouped_prefix(budget.mamba_heads[ordinal], full, parent.ssm_groups, dtype)
    inside = _prefix(budget.mamba_head_dim, parent.mamba_head_dim, dtype)
    channels = torch.outer(heads, inside).flatten()
    shared = torch.ones(2 * parent.ssm_groups * parent.ssm_state, dtype=dtype)  # B and C are never cut
    return {
        f"projected.{index}": torch.cat([channels, channels, shared, heads]),
        f"channels.{index}": channels,
    }


def _head_mask(parent: Architecture, budget: Budget, dtype: torch.dtype) -> Tensor:
    heads = _grouped_prefix(budget.attention_heads, parent.attention_heads, parent.kv_heads, dtype)
    return heads.repeat_interleave(parent.attention_head_dim)
