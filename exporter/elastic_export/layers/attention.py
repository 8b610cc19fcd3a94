"""The attention layer: causal, grouped queries, over a cache; no position embedding."""

from __future__ import annotations

from typing import Final

from elastic_export.layers.axis import Axis, extent
from elastic_export.layers.kind import HIDDEN, LayerKind, Mask, State, Tensor

KV_HEADS: Final = Axis("kv_heads", ("num_key_value_heads", "num_query_groups"), called="KV heads")
#: Grouped: query head h reads KV head ⌊h/(q/kv)⌋, so each KV head keeps its first queries.
QUERY_HEADS: Final = Axis("attention_heads", ("num_attention_heads",), elastic=True, groups=KV_HEADS)
HEAD_SIZE: Final = Axis("attention_head_dim", ("head_dim", "attention_head_dim"))

QUERIES: Final = extent(QUERY_HEADS, HEAD_SIZE)
KEYS: Final = extent(KV_HEADS, HEAD_SIZE)
_CACHE: Final = (extent(KV_HEADS), None, extent(HEAD_SIZE))

ATTENTION: Final = LayerKind(
    letter="*",
    noun="an attention layer",
    called="attention",
    types=("attention", "full_attention"),
    axes=(QUERY_HEADS, KV_HEADS, HEAD_SIZE),
    tensors=(
        Tensor("q_proj.weight", (QUERIES, extent(HIDDEN))),
        Tensor("k_proj.weight", (KEYS, extent(HIDDEN))),
        Tensor("v_proj.weight", (KEYS, extent(HIDDEN))),
        Tensor("o_proj.weight", (extent(HIDDEN), QUERIES)),
    ),
    masks=(Mask("heads", QUERIES),),
    states=(State("key_cache", _CACHE), State("value_cache", _CACHE)),
    joined=dict.fromkeys(("q_proj.weight", "k_proj.weight", "v_proj.weight"), "qkv_proj.weight"),
)
