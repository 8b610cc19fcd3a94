"""How liveness passes through `elastic::LastToken`."""

from __future__ import annotations

import onnx_ir as ir

from elastic_export.graph.liveness import Liveness
from elastic_export.graph.rule import Rule
from elastic_export.graph.values import operand


class LastToken(Rule):
    """x [B, T, d] and length [B] -> [B, d]: a row is picked whole, so its channels pass through as they are."""

    def zeros(self, node: ir.Node, live: Liveness) -> None:
        """Those of the channels."""
        known = live.zero(operand(node, 0))
        live.set_zero(node.outputs[0], [known[0], known[2]])

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """What the row needs."""
        live.reach(operand(node, 0))
        live.require_all(operand(node, 1))
        live.tie(operand(node, 0), 2, node.outputs[0], 1)


RULE = LastToken()
