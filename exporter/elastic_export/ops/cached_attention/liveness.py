"""How liveness passes through `elastic::CachedAttention`."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from elastic_export.graph.lattices import Liveness, known
from elastic_export.graph.rule import Rule
from elastic_export.graph.values import int_attribute, node_error, set_ints
from elastic_export.ops.cached_attention import CACHED_ATTENTION


class CachedAttention(Rule):
    """Query heads may go, the same number in each KV group; keys, values and caches stay whole.

    y of head h is softmax(q_h·K/√hd)·V of its KV head: it reads all channels of q_h (the scores are sums over them) and
    nothing of another query head. A zero in q makes no zero in y, for the softmax of equal scores is a mean of values;
    so nothing is known to be zero, and what goes is what o_proj's mask makes unneeded.
    """

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """A head is needed with all its channels as soon as one of them is."""
        query, y = _input(node, "query"), CACHED_ATTENTION.output(node, "y")
        channels = np.repeat(self._heads(node, live).any(axis=1), int_attribute(node, "head_dim"))
        for value in (query, y):
            live.require(value, 2, channels)
        for name in ("key", "value", "key_cache", "value_cache", "position"):
            live.require_all(_input(node, name))
        for name in ("key_cache_out", "value_cache_out"):
            live.require_all(CACHED_ATTENTION.output(node, name))

    def cut(self, node: ir.Node, live: Liveness) -> None:
        """The grouping ⌊h/(q/kv)⌋ survives only where every KV group keeps as many heads."""
        kept = self._heads(node, live).any(axis=1)
        per_group = kept.reshape(int_attribute(node, "num_key_value_heads"), -1).sum(axis=1)
        if len(set(per_group.tolist())) != 1:
            raise node_error(
                node, expected="the same number of query heads in every KV group", found=f"{per_group.tolist()}"
            )
        set_ints(node, num_heads=int(kept.sum()))

    def _heads(self, node: ir.Node, live: Liveness) -> np.ndarray:
        """Needed channels as [heads, head dim]."""
        need = known(live.need(CACHED_ATTENTION.output(node, "y"))[2]) | known(live.need(_input(node, "query"))[2])
        heads: np.ndarray = need.reshape(-1, int_attribute(node, "head_dim"))
        return heads


def _input(node: ir.Node, name: str) -> ir.Value:
    return CACHED_ATTENTION.operand(node, name)


RULE = CachedAttention()
