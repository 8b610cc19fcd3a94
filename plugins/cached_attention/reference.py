"""Attention over caches in float64, one query head of one token after the other: what kernels are measured against.

Vaswani and others, "Attention is all you need" (arXiv 1706.03762), equation 1, causal, with grouped queries as in
Ainslie and others, "GQA" (arXiv 2305.13245); names and shapes as in contract.json.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def append(cache: NDArray, new: NDArray, position: NDArray[np.int64]) -> NDArray:
    """The cache [B, G, S, D] with `new` [B, T, G*D] in its rows from `position` [B] on; rows outside are dropped."""
    batch, groups, context, head_dim = cache.shape
    written = cache.copy()
    for b in range(batch):
        for t in range(new.shape[1]):
            row = int(position[b]) + t
            if 0 <= row < context:
                written[b, :, row] = new[b, t].reshape(groups, head_dim)
    return written


def attention(query: Array, key_cache: Array, value_cache: Array, position: NDArray[np.int64], scale: float) -> Array:
    """y [B, T, H*D] of `query` [B, T, H*D] over caches [B, G, S, D] that hold the call's own rows already.

    Head h reads key and value head h // (H/G); token t sees the rows 0..position+t.
    """
    batch, groups, _, head_dim = key_cache.shape
    tokens, heads = query.shape[1], query.shape[2] // head_dim
    y = np.zeros((batch, tokens, heads, head_dim))
    for b in range(batch):
        for h in range(heads):
            group = h // (heads // groups)
            for t in range(tokens):
                seen = int(position[b]) + t + 1
                scores = scale * (key_cache[b, group, :seen] @ query[b, t].reshape(heads, head_dim)[h])
                weights = np.exp(scores - scores.max())
                y[b, t, h] = weights @ value_cache[b, group, :seen] / weights.sum()
    return y.reshape(batch, tokens, heads * head_dim)
