"""A budget as masks: vectors of ones and zeros that are inputs of the parent, so one trace serves every budget."""

from __future__ import annotations

import torch
from torch import Tensor

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.axis import extent, kept_of
from elastic_export.layers.budget import Budget
from elastic_export.layers.kind import HIDDEN

Masks = dict[str, Tensor]
"""Name -> vector: `hidden` [d]; per layer i the masks of its kind, such as `ffn.i` [f], and `branch.i` [d] (the hidden
mask, zero where the layer is skipped)."""


def mask_sizes(parent: Architecture) -> dict[str, int]:
    """Name and length of every mask of the parent, in the order of the data's way."""
    sizes = {"hidden": parent.hidden_size}
    for index, kind, ordinal in parent.layers():
        sizes |= {f"{mask.name}.{index}": parent.size(mask.axis, ordinal) for mask in kind.masks}
        sizes[f"branch.{index}"] = parent.hidden_size
    return sizes


def budget_masks(parent: Architecture, budget: Budget, dtype: torch.dtype = torch.float32) -> Masks:
    """The masks of one budget. Masks of a skipped layer keep its widths; its branch mask is zero."""
    hidden = torch.from_numpy(kept_of(extent(HIDDEN), parent, budget)).to(dtype)
    masks: Masks = {"hidden": hidden}
    for index, kind, ordinal in parent.layers():
        for mask in kind.masks:
            masks[f"{mask.name}.{index}"] = torch.from_numpy(kept_of(mask.axis, parent, budget, ordinal)).to(dtype)
        masks[f"branch.{index}"] = torch.zeros_like(hidden) if index in budget.skip_layers else hidden.clone()
    return masks
