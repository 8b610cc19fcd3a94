"""The ops of domain `elastic` as PyTorch sees them: a readable implementation and a shape rule each.

Four ops make up the parent graph besides standard ones. Only the mixer survives into an emitted file, without its
mask (`plugins/mamba2_mixer/contract.json`); the passes turn the others into standard ONNX.
"""

from __future__ import annotations

import torch
from torch import Tensor

from elastic_export.reference.mamba2 import MixerParameters, MixerSizes, mamba2_mixer


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@torch.library.custom_op("elastic::masked_mamba2_mixer", mutates_args=())
def masked_mamba2_mixer(
    projected: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    norm_weight: Tensor,
    length: Tensor,
    conv_state: Tensor,
    ssm_state: Tensor,
    channel_mask: Tensor,
    n_groups: int,
    head_dim: int,
    state_size: int,
    epsilon: float,
    time_step_min: float,
    time_step_max: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`elastic::Mamba2Mixer` with one input more: channel_mask [di]. Shapes and meaning in its contract."""
    sizes = MixerSizes(n_groups, head_dim, state_size, epsilon, time_step_min, time_step_max)
    parameters = MixerParameters(conv_weight, conv_bias, A_log, D, dt_bias, norm_weight)
    return mamba2_mixer(projected, parameters, channel_mask, length, conv_state, ssm_state, sizes)


@masked_mamba2_mixer.register_fake
def _(projected, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, length, conv_state, ssm_state, *_args, **_kw):  # type: ignore[no-untyped-def]
    y = projected.new_empty((projected.shape[0], projected.shape[1], norm_weight.shape[0]))
    return y, torch.empty_like(conv_state), torch.empty_like(ssm_state)


@torch.library.custom_op("elastic::masked_rms_norm", mutates_args=())
def masked_rms_norm(x: Tensor, weight: Tensor, mask: Tensor, epsilon: float) -> Tensor:
    """RMSNorm over the kept channels: x·m / sqrt(Σ(x·m)²/Σm + eps) · weight. x [..., d]; weight, mask [d]."""
    compute = _compute_dtype(x)
    kept = x.to(compute) * mask.to(compute)
    scale = torch.rsqrt(kept.pow(2).sum(dim=-1, keepdim=True) / mask.to(compute).sum() + epsilon)
    return (kept * scale * weight.to(compute)).to(x.dtype)


@masked_rms_norm.register_fake
def _(x, weight, mask, epsilon):  # type: ignore[no-untyped-def]
    return torch.empty_like(x)


@torch.library.custom_op("elastic::cached_attention", mutates_args=())
def cached_attention(
    query: Tensor, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, position: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal grouped-query attention over a cache written in place of its rows position .. position+T-1.

    Args:
        query: [B, T, q·hd].
        key: [B, T, kv·hd]; value the same.
        key_cache: [B, kv, S, hd]; value_cache the same.
        position: int64 [B], rows of the cache that hold earlier tokens.

    Returns:
        [B, T, q·hd] and both caches. Query head h reads KV head ⌊h/(q/kv)⌋; row t sees cache rows ≤ position + t;
        scale 1/sqrt(hd); softmax in float32 at least.
    """
    compute = _compute_dtype(query)
    batch, tokens, width = query.shape
    kv, capacity, hd = key_cache.shape[1:]
    rows = position[:, None] + torch.arange(tokens, device=position.device)
    index = rows[:, None, :, None].expand(batch, kv, tokens, hd)
    new_key = key_cache.scatter(2, index, key.reshape(batch, tokens, kv, hd).transpose(1, 2))
    new_value = value_cache.scatter(2, index, value.reshape(batch, tokens, kv, hd).transpose(1, 2))
    q = query.reshape(batch, tokens, kv, -1, hd).permute(0, 2, 3, 1, 4).to(compute)
    scores = (q @ new_key.to(compute)[:, :, None].transpose(-1, -2)) / hd**0.5
    visible = torch.arange(capacity, device=position.device) <= rows[:, :, None]
    scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
    seen = new_value.to(compute)[:, :, None].masked_fill(~visible.any(dim=1)[:, None, None, :, None], 0.0)
    y = scores.softmax(dim=-1) @ seen
    return y.permute(0, 3, 1, 2, 4).reshape(batch, tokens, width).to(query.dtype), new_key, new_value


@cached_attention.register_fake
def _(query, key, value, key_cache, value_cache, position):  # type: ignore[no-untyped-def]
    return torch.empty_like(query), torch.empty_like(key_cache), torch.empty_like(value_cache)


@torch.library.custom_op("elastic::last_token", mutates_args=())
def last_token(x: Tensor, length: Tensor) -> Tensor:
    """Row length-1 of each sequence (row 0 where length is 0). x [B, T, d], length int64 [B] -> [B, d]."""
    index = (length - 1).clamp(min=0)
    return x[torch.arange(x.shape[0], device=x.device), index]


@last_token.register_fake
def _(x, length):  # type: ignore[no-untyped-def]
    return x.new_empty((x.shape[0], x.shape[2]))
