"""`elastic::MaskedRMSNorm` as PyTorch sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elastic_export.ops.schemas import opset
from elastic_export.ops.torch_dtypes import compute_dtype


@torch.library.custom_op("elastic::masked_rms_norm", mutates_args=())
def masked_rms_norm(x: Tensor, weight: Tensor, mask: Tensor, epsilon: float) -> Tensor:
    """RMSNorm over the kept channels: x·m / sqrt(Σ(x·m)²/Σm + eps) · weight. x [..., d]; weight, mask [d]."""
    compute = compute_dtype(x)
    kept = x.to(compute) * mask.to(compute)
    scale = torch.rsqrt(kept.pow(2).sum(dim=-1, keepdim=True) / mask.to(compute).sum() + epsilon)
    return (kept * scale * weight.to(compute)).to(x.dtype)


@masked_rms_norm.register_fake
def _(x, weight, mask, epsilon):  # type: ignore[no-untyped-def]
    return torch.empty_like(x)


def translation() -> tuple[Any, Any]:
    """The PyTorch op and the function that records its node."""

    def record(x, weight, mask, epsilon: float):  # type: ignore[no-untyped-def]
        return opset().MaskedRMSNorm(x, weight, mask, epsilon=epsilon)

    return torch.ops.elastic.masked_rms_norm.default, record
