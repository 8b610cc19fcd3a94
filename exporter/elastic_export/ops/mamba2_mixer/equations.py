"""The Mamba-2 mixer, written to be read: one step a token, as the equations stand in the paper.

Sources: selective state space recurrence, Dao and Gu 2024 (arXiv 2405.21060), eq. 1 and section 7; gated RMSNorm with
the gate first, as in the Nemotron-H modelling code. Symbols: B batch, T tokens, H heads, P head dim, G groups, N state,
K convolution width, di = H·P, dc = di + 2·G·N. Calls of more than `FEW` tokens are scanned in chunks (`chunked.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from elastic_export.ops.mamba2_mixer.chunked import chunked_scan

#: Tokens up to which a call is scanned as the equations stand.
FEW = 16


@dataclass(frozen=True)
class MixerSizes:
    """The op's attributes, see `plugins/mamba2_mixer/contract.json`."""

    n_groups: int
    head_dim: int
    state_size: int
    epsilon: float
    time_step_min: float
    time_step_max: float


class MixerParameters(NamedTuple):
    """The op's weights: [dc,1,K], [dc], [H], [H], [H], [di]."""

    conv_weight: Tensor
    conv_bias: Tensor
    A_log: Tensor
    D: Tensor
    dt_bias: Tensor
    norm_weight: Tensor


def mamba2_mixer(
    projected: Tensor,
    parameters: MixerParameters,
    channel_mask: Tensor | None,
    length: Tensor,
    conv_state: Tensor,
    ssm_state: Tensor,
    sizes: MixerSizes,
) -> tuple[Tensor, Tensor, Tensor]:
    """Convolution, scan, gate and grouped norm of one Mamba-2 layer.

    Args:
        projected: [B, T, 2di+2GN+H], rows z | x | B | C | dt.
        parameters: the layer's weights.
        channel_mask: [di] of ones and zeros, or None for all ones. A masked channel gives y = 0 and does not count in
            the norm of its group.
        length: int64 [B], real tokens of each row; a row of length 0 keeps both states bit for bit.
        conv_state: [B, K-1, dc], the last raw convolution inputs, oldest first.
        ssm_state: [B, H, P, N].
        sizes: the op's attributes.

    Returns:
        y [B, T, di] in the dtype of `projected` (rows at and past `length` are unspecified), and both new states in
        their own dtypes. Arithmetic is float32, or float64 where `projected` is.
    """
    compute = torch.float64 if projected.dtype == torch.float64 else torch.float32
    heads, di = parameters.A_log.shape[0], parameters.norm_weight.shape[0]
    z, xBC, dt = torch.split(projected, [di, conv_state.shape[2], heads], dim=-1)
    valid = torch.arange(projected.shape[1], device=length.device) < length[:, None]

    conv_state_out = _advance_conv_state(xBC, length, conv_state)
    xBC = _causal_conv(xBC.to(compute), parameters, conv_state.to(compute))
    dt = _time_step(dt.to(compute), parameters.dt_bias.to(compute), valid, sizes)
    y, ssm_state_out = _scan(xBC, dt, parameters, ssm_state.to(compute), sizes)
    y = _gated_group_norm(y, z.to(compute), channel_mask, parameters.norm_weight.to(compute), sizes)
    return y.to(projected.dtype), conv_state_out, ssm_state_out.to(ssm_state.dtype)


def _causal_conv(xBC: Tensor, parameters: MixerParameters, conv_state: Tensor) -> Tensor:
    """silu(depthwise causal cross-correlation + bias): tap K-1 meets the current token. [B,T,dc] -> [B,T,dc]."""
    window, tokens = torch.cat([conv_state, xBC], dim=1), xBC.shape[1]
    weight, bias = parameters.conv_weight.to(xBC.dtype), parameters.conv_bias.to(xBC.dtype)
    taps = (window[:, tap : tap + tokens] * weight[:, 0, tap] for tap in range(weight.shape[2]))
    return F.silu(sum(taps, bias))


def _advance_conv_state(xBC: Tensor, length: Tensor, conv_state: Tensor) -> Tensor:
    """The last K-1 raw inputs of the real tokens: rows length .. length+K-2 of conv_state ++ xBC."""
    window = torch.cat([conv_state, xBC.to(conv_state.dtype)], dim=1)
    rows = length[:, None] + torch.arange(conv_state.shape[1], device=length.device)
    return window.gather(1, rows[:, :, None].expand(-1, -1, window.shape[2]))


def _time_step(dt: Tensor, dt_bias: Tensor, valid: Tensor, sizes: MixerSizes) -> Tensor:
    """clamp(softplus(dt + bias)), and 0 for padding: a step of length zero changes no state. [B,T,H]."""
    dt = F.softplus(dt + dt_bias, threshold=20.0).clamp(sizes.time_step_min, sizes.time_step_max)
    return torch.where(valid[:, :, None], dt, torch.zeros_like(dt))


def _scan(
    xBC: Tensor, dt: Tensor, parameters: MixerParameters, state: Tensor, sizes: MixerSizes
) -> tuple[Tensor, Tensor]:
    """S_t = exp(dt·A)·S_{t-1} + dt·x_t ⊗ B_t and y_t = S_t·C_t + D·x_t; head h reads group ⌊h/(H/G)⌋."""
    batch, tokens, heads = dt.shape
    groups, P, N = sizes.n_groups, sizes.head_dim, sizes.state_size
    x, B, C = torch.split(xBC, [heads * P, groups * N, groups * N], dim=-1)
    x = x.reshape(batch, tokens, heads, P)
    B, C = (value.reshape(batch, tokens, groups, N) for value in (B, C))
    A = -torch.exp(parameters.A_log.to(dt.dtype))
    y, state = (stepwise_scan if tokens <= FEW else chunked_scan)(x, B, C, dt, A, state)
    y = y + parameters.D.to(dt.dtype)[:, None] * x
    return y.reshape(batch, tokens, heads * P), state


def stepwise_scan(x: Tensor, B: Tensor, C: Tensor, dt: Tensor, A: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence, one token after the other; arguments and results as `chunked_scan`."""
    B, C = (value.repeat_interleave(x.shape[2] // value.shape[2], dim=2) for value in (B, C))
    outputs = []
    for t in range(dt.shape[1]):
        decay = torch.exp(dt[:, t] * A)[:, :, None, None]
        state = decay * state + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None, :]
        outputs.append((state * C[:, t, :, None, :]).sum(dim=-1))
    return torch.stack(outputs, dim=1), state


def _gated_group_norm(y: Tensor, z: Tensor, channel_mask: Tensor | None, weight: Tensor, sizes: MixerSizes) -> Tensor:
    """RMSNorm of y·silu(z) over the kept channels of each group, times the weight. [B,T,di]."""
    gated = y * F.silu(z)
    mask = torch.ones_like(weight) if channel_mask is None else channel_mask.to(weight.dtype)
    groups = (sizes.n_groups, gated.shape[-1] // sizes.n_groups)
    gated = torch.unflatten(gated * mask, -1, groups)
    kept = torch.unflatten(mask, -1, groups).sum(dim=-1, keepdim=True)
    scale = torch.rsqrt(gated.pow(2).sum(dim=-1, keepdim=True) / kept + sizes.epsilon)
    normed: Tensor = (gated * scale).flatten(-2) * weight
    return normed
