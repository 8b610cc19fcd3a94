"""The Mamba-2 mixer in float64, one token after the other: what the kernels are measured against.

Formulas: Dao and Gu, "Transformers are SSMs" (arXiv 2405.21060), section 7, as the model family's published code uses
them; names and shapes as in contract.json.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Parameters:
    """What stays the same from call to call. Arrays of float64; `conv_weight` is [dc, K]."""

    conv_weight: Array
    conv_bias: Array
    A_log: Array
    D: Array
    dt_bias: Array
    norm_weight: Array
    n_groups: int
    head_dim: int
    state_size: int
    epsilon: float
    time_step_min: float = 0.0
    time_step_max: float = np.inf


@dataclass(frozen=True)
class State:
    """`conv` [B, K-1, dc], the last raw inputs, oldest first; `ssm` [B, H, P, N]."""

    conv: Array
    ssm: Array


def softplus(s: Array) -> Array:
    """log(1 + e^s), and s itself above 20."""
    return np.where(s > 20, s, np.log1p(np.exp(np.minimum(s, 20))))


def silu(v: Array) -> Array:
    """v * sigmoid(v)."""
    with np.errstate(over="ignore"):  # v / inf is the right answer
        out: Array = v / (1 + np.exp(-v))
    return out


def causal_conv(p: Parameters, window: Array) -> Array:
    """Of `window` [B, K, dc], the current token last: [B, dc]."""
    return silu(p.conv_bias + np.einsum("ck,bkc->bc", p.conv_weight, window))


def gated_norm(p: Parameters, y: Array, z: Array) -> Array:
    """Gate first, RMSNorm over each group second. y and z are [B, di]."""
    q = (y * silu(z)).reshape(len(y), p.n_groups, -1)
    mean = np.mean(q * q, axis=-1, keepdims=True)
    out: Array = (q / np.sqrt(mean + p.epsilon)).reshape(y.shape) * p.norm_weight
    return out


def step(p: Parameters, state: State, token: Array) -> tuple[Array, State]:
    """One token [B, 2di+2GN+H] of every row: y [B, di] and the new state."""
    heads, inner = len(p.A_log), len(p.A_log) * p.head_dim
    z, raw, dt = np.split(token, [inner, token.shape[1] - heads], axis=1)
    window = np.concatenate([state.conv, raw[:, None]], axis=1)
    x, b, c = np.split(causal_conv(p, window), [inner, inner + p.n_groups * p.state_size], axis=1)
    x = x.reshape(-1, heads, p.head_dim)
    # Head h uses group h // (H / G).
    b, c = (np.repeat(m.reshape(-1, p.n_groups, p.state_size), heads // p.n_groups, axis=1) for m in (b, c))
    dt = np.clip(softplus(dt + p.dt_bias), p.time_step_min, p.time_step_max)
    decay = np.exp(dt * -np.exp(p.A_log))[..., None, None]
    ssm = decay * state.ssm + (dt[..., None] * x)[..., None] * b[:, :, None]
    y = np.einsum("bhpn,bhn->bhp", ssm, c) + p.D[:, None] * x
    return gated_norm(p, y.reshape(-1, inner), z), State(window[:, 1:], ssm)


def mixer(p: Parameters, state: State, projected: Array, length: NDArray[np.int64]) -> tuple[Array, State]:
    """A call of T tokens: y [B, T, di], NaN at and past `length` [B], and the states after `length` tokens."""
    y = np.full((*projected.shape[:2], len(p.A_log) * p.head_dim), np.nan)
    for t in range(projected.shape[1]):
        real = np.flatnonzero(length > t)
        if len(real) == 0:
            break
        y[real, t], new = step(p, State(state.conv[real], state.ssm[real]), projected[real, t])
        conv, ssm = state.conv.copy(), state.ssm.copy()
        conv[real], ssm[real] = new.conv, new.ssm
        state = replace(state, conv=conv, ssm=ssm)
    return y, state
