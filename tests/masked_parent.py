"""The masked parent whole, weights and all: small enough here to be held at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from elastic_export.layers.architecture import Architecture
from elastic_export.reference import ElasticModel, Masks
from elastic_export.reference.masks import mask_sizes


def full_masks(parent: Architecture, dtype: torch.dtype = torch.float32) -> Masks:
    """The masks of the parent itself."""
    return {name: torch.ones(size, dtype=dtype) for name, size in mask_sizes(parent).items()}


def load_reference(
    arch: Architecture,
    read: Callable[[str], np.ndarray],
    *,
    prefix: str = "backbone",
    dtype: torch.dtype = torch.float32,
    every_token: bool = False,
) -> ElasticModel:
    """An `ElasticModel` with weights: `read(name)` gives each tensor; they are converted to `dtype` one at a time."""
    with torch.device("meta"):
        model = ElasticModel(arch, prefix, every_token=every_token)
    names = [name for name, _ in model.named_parameters()]
    weights = {name: torch.from_numpy(np.array(read(name), dtype=np.float32)).to(dtype) for name in names}
    model.load_state_dict(weights, assign=True)
    return model.eval()
