"""`elastic::CachedAttention`: causal grouped-query attention over a cache, lowered to standard ops."""

from __future__ import annotations

from typing import Final

from elastic_export.ops.op import Op

CACHED_ATTENTION: Final = Op(
    name="CachedAttention",
    folder="cached_attention",
    inputs=("query", "key", "value", "key_cache", "value_cache", "position"),
    outputs=("y", "key_cache_out", "value_cache_out"),
    integers=frozenset({"position"}),
)
