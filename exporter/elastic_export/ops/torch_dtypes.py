"""The dtype that a reference op computes in."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """Float32, or float64 where x is: never narrower than the contract of any op asks for."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
