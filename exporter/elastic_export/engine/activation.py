"""How much scratch memory a good graph may take: an engine above the bound is refused."""

from __future__ import annotations

from elastic_export.checkpoint.architecture import Architecture
from elastic_export.engine.limits import uses_fused_attention
from elastic_export.engine.request import Precision

_ITEMSIZES = {"bf16": 2, "fp16": 2, "fp32": 4}
#: Workspace of the matrix products and what small graphs need.
_BASE = 64_000_000


def activation_bound(
    arch: Architecture,
    precision: Precision,
    *,
    max_tokens: int,
    max_context: int,
    max_batch: int,
    every_token: bool = False,
) -> int:
    """Upper bound on the builder's "Total Activation Memory" in bytes, of the larger profile.

    The widest intermediate in float32 a few times over (the native mixer holds its pieces side by side), the chunk
    states, keys and values expanded to all query heads in prefill, the mask, and where attention is explicit its scores
    and the caches in float32. A matrix that the builder copies because the graph asks for its transpose breaks it.
    """
    rows = [arch.projected_size(i) for i in range(len(arch.mamba_heads))]
    widest = max((*rows, *arch.ffn_sizes, arch.hidden_size))
    tokens = max_batch * max_tokens
    bound = _BASE + 16 * widest * tokens
    chunks = -(-max_tokens // 64) + 1
    state = max((heads * arch.mamba_head_dim * arch.ssm_state for heads in arch.mamba_heads), default=0)
    pairs = max((heads * 64 for heads in arch.mamba_heads), default=0)
    bound += 4 * max_batch * (3 * chunks * state + 2 * min(max_tokens, 64) * chunks * pairs)
    if "*" in arch.pattern:
        expanded = 2 * arch.attention_heads * arch.attention_head_dim * max_context * max_batch
        bound += 8 * tokens * max_context + _ITEMSIZES[precision] * expanded
        if not uses_fused_attention(precision, arch.attention_head_dim, arch.attention_heads):
            cache = arch.kv_heads * arch.attention_head_dim * max_context * max_batch
            bound += 4 * (4 * arch.attention_heads * tokens * max_context + 4 * cache)
    if every_token:
        bound += 3 * _ITEMSIZES[precision] * tokens * arch.vocab_size
    return bound
