"""How liveness passes through `elastic::LastToken`."""

from __future__ import annotations

import onnx_ir as ir

from elastic_export.graph.lattices import Liveness
from elastic_export.graph.rule import Rule
from elastic_export.ops.last_token import LAST_TOKEN


class LastToken(Rule):
    """x [B, T, d] and length [B] -> [B, d]: a row is picked whole, so its channels pass through as they are."""

    def zeros(self, node: ir.Node, live: Liveness) -> None:
        """Those of the channels."""
        known = live.zero(LAST_TOKEN.operand(node, "x"))
        live.set_zero(node.outputs[0], [known[0], known[2]])

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """What the row needs."""
        x = LAST_TOKEN.operand(node, "x")
        live.reach(x)
        live.require_all(LAST_TOKEN.operand(node, "length"))
        live.tie(x, 2, node.outputs[0], 1)


RULE = LastToken()
