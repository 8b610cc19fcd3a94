"""`elastic::LastToken` as PyTorch sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elastic_export.ops.schemas import opset


@torch.library.custom_op("elastic::last_token", mutates_args=())
def last_token(x: Tensor, length: Tensor) -> Tensor:
    """Row length-1 of each sequence (row 0 where length is 0). x [B, T, d], length int64 [B] -> [B, d]."""
    index = (length - 1).clamp(min=0)
    return x[torch.arange(x.shape[0], device=x.device), index]


@last_token.register_fake
def _(x, length):  # type: ignore[no-untyped-def]
    return x.new_empty((x.shape[0], x.shape[2]))


def translation() -> tuple[Any, Any]:
    """The PyTorch op and the function that records its node."""

    def record(x, length):  # type: ignore[no-untyped-def]
        return opset().LastToken(x, length)

    return torch.ops.elastic.last_token.default, record
