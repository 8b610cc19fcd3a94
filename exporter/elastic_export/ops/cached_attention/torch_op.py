"""`elastic::CachedAttention` as PyTorch sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elastic_export.ops.schemas import opset
from elastic_export.ops.torch_dtypes import compute_dtype


@torch.library.custom_op("elastic::cached_attention", mutates_args=())
def cached_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    position: Tensor,
    num_heads: int,
    num_key_value_heads: int,
    head_dim: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal grouped-query attention over a cache written in place of its rows position .. position+T-1.

    Args:
        query: [B, T, q·hd].
        key: [B, T, kv·hd]; value the same.
        key_cache: [B, kv, S, hd]; value_cache the same.
        position: int64 [B], rows of the cache that hold earlier tokens.
        num_heads: q; num_key_value_heads: kv.
        head_dim: hd.
        scale: of the scores, normally 1/sqrt(hd).

    Returns:
        [B, T, q·hd] and both caches. Query head h reads KV head ⌊h/(q/kv)⌋; row t sees cache rows ≤ position + t;
        softmax in float32 at least.
    """
    compute, kv, hd = compute_dtype(query), num_key_value_heads, head_dim
    batch, tokens, width = query.shape
    capacity = key_cache.shape[2]
    rows = position[:, None] + torch.arange(tokens, device=position.device)
    index = rows[:, None, :, None].expand(batch, kv, tokens, hd)
    new_key = key_cache.scatter(2, index, key.reshape(batch, tokens, kv, hd).transpose(1, 2))
    new_value = value_cache.scatter(2, index, value.reshape(batch, tokens, kv, hd).transpose(1, 2))
    q = query.reshape(batch, tokens, kv, num_heads // kv, hd).permute(0, 2, 3, 1, 4).to(compute)
    scores = (q @ new_key.to(compute)[:, :, None].transpose(-1, -2)) * scale
    visible = torch.arange(capacity, device=position.device) <= rows[:, :, None]
    scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
    seen = new_value.to(compute)[:, :, None].masked_fill(~visible.any(dim=1)[:, None, None, :, None], 0.0)
    y = scores.softmax(dim=-1) @ seen
    return y.permute(0, 3, 1, 2, 4).reshape(batch, tokens, width).to(query.dtype), new_key, new_value


@cached_attention.register_fake
def _(query, key, value, key_cache, value_cache, position, *_args, **_kw):  # type: ignore[no-untyped-def]
    return torch.empty_like(query), torch.empty_like(key_cache), torch.empty_like(value_cache)


def translation() -> tuple[Any, Any]:
    """The PyTorch op and the function that records its node."""

    # fmt: off
    def record(  # type: ignore[no-untyped-def]
        query, key, value, key_cache, value_cache, position,
        num_heads: int, num_key_value_heads: int, head_dim: int, scale: float,
    ):
        return opset().CachedAttention(
            query, key, value, key_cache, value_cache, position,
            num_heads=num_heads, num_key_value_heads=num_key_value_heads, head_dim=head_dim, scale=scale,
        )
    # fmt: on

    return torch.ops.elastic.cached_attention.default, record
