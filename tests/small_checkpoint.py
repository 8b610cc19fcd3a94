"""A small checkpoint of all layer kinds and one budget of it, and its forward pass in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.mamba2 import CONV
from synthetic import write_checkpoint

Array = np.ndarray[Any, Any]


def _rms(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * weight


def _silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def _mamba(a: Architecture, ordinal: int, w: Mapping[str, Array], u: Array) -> Array:
    H, P, g, N, k = a.mamba_heads[ordinal], a.mamba_head_dim, a.ssm_groups, a.ssm_state, a.conv_kernel
    di, tokens = H * P, len(u)
    z, xbc, dt = np.split(u @ w["in_proj.weight"].T, [di, di + a.size(CONV, ordinal)], -1)
    padded = np.concatenate([np.zeros((k - 1, xbc.shape[1])), xbc])
    xbc = _silu(sum(padded[i : i + tokens] * w["conv1d.weight"][:, 0, i] for i in range(k)) + w["conv1d.bias"])
    x, b, c = np.split(xbc, [di, di + g * N], -1)
    dt = np.clip(np.logaddexp(0, dt + w["dt_bias"]), *a.time_step_limit)
    x, b, c = x.reshape(-1, H, P), b.reshape(-1, g, N).repeat(H // g, 1), c.reshape(-1, g, N).repeat(H // g, 1)
    decay, state, y = np.exp(-np.exp(w["A_log"]) * dt), np.zeros((H, P, N)), np.empty_like(x)
    for t in range(tokens):
        state = decay[t, :, None, None] * state + (dt[t, :, None] * x[t])[:, :, None] * b[t, :, None, :]
        y[t] = (state * c[t, :, None, :]).sum(-1) + w["D"][:, None] * x[t]
    gated = (y.reshape(tokens, di) * _silu(z)).reshape(tokens, g, di // g)
    return _rms(gated, w["norm.weight"].reshape(g, -1), a.epsilon).reshape(tokens, di) @ w["out_proj.weight"].T


def _attention(a: Architecture, w: Mapping[str, Array], u: Array) -> Array:
    size, each = a.attention_head_dim, a.attention_heads // a.kv_heads
    q = (u @ w["q_proj.weight"].T).reshape(len(u), a.attention_heads, size)
    k = (u @ w["k_proj.weight"].T).reshape(len(u), a.kv_heads, size).repeat(each, 1)
    v = (u @ w["v_proj.weight"].T).reshape(len(u), a.kv_heads, size).repeat(each, 1)
    scores = np.einsum("thc,shc->hts", q, k) / np.sqrt(size) + np.triu(np.full((len(u), len(u)), -np.inf), 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("hts,shc->thc", weights / weights.sum(-1, keepdims=True), v)
    return mixed.reshape(len(u), -1) @ w["o_proj.weight"].T


def _forward(a: Architecture, weights: Mapping[str, Array], ids: Array, without: int | None = None) -> Array:
    """Logits [T, V] of one sequence in float64; `without` leaves one layer out."""
    w = {name.split(".", 1)[-1] if name[:2] != "lm" else name: np.asarray(x, np.float64) for name, x in weights.items()}
    x = w["embeddings.weight"][ids]
    for index, kind, ordinal in a.layers():
        lead = f"layers.{index}.mixer."
        mixer = {name.removeprefix(lead): value for name, value in w.items() if name.startswith(lead)}
        u = _rms(x, w[f"layers.{index}.norm.weight"], a.epsilon)
        if index == without:
            continue
        if kind.letter == "M":
            x = x + _mamba(a, ordinal, mixer, u)
        elif kind.letter == "-":
            x = x + np.maximum(u @ mixer["up_proj.weight"].T, 0) ** 2 @ mixer["down_proj.weight"].T
        else:
            x = x + _attention(a, mixer, u)
    return _rms(x, w["norm_f.weight"], a.epsilon) @ w["lm_head.weight"].T


@pytest.fixture(scope="session")
def naive_forward() -> Callable[..., Array]:
    """`forward(architecture, weights, ids, without=None)`: logits [T, V] in float64, by the formulas."""
    return _forward


#: A parent with everything: three kinds of layers, groups, several queries per KV head, odd widths.
PARENT = Architecture(
    pattern="M-*M-M-*",
    vocab_size=61,
    hidden_size=24,
    ffn_sizes=(37,) * 3,
    mamba_heads=(6,) * 3,
    mamba_head_dim=12,
    ssm_groups=2,
    ssm_state=5,
    conv_kernel=3,
    attention_heads=6,
    kv_heads=2,
    attention_head_dim=8,
    epsilon=1e-5,
    time_step_limit=(0.0, float("inf")),
)


@pytest.fixture(scope="session")
def parent() -> Architecture:
    """A small parent with everything."""
    return PARENT


@pytest.fixture
def small(parent: Architecture) -> Budget:
    """A budget of it that cuts every axis."""
    return Budget("small", 20, (30, 21, 37), (4, 6, 2), 7, 4, (3, 7))


@pytest.fixture
def folder(tmp_path: Path, parent: Architecture, small: Budget) -> Path:
    """A two-shard BF16 checkpoint of it with the budgets `full` and `small`."""
    weights = random_weights(parent, np.random.default_rng(7))
    return write_checkpoint(tmp_path / "ckpt", parent, weights, [Budget.full(parent, "full"), small], shards=2)
