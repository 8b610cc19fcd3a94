"""Pass: collapse skipped layers."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from elastic_export.graph.values import operand, replace_uses, static_shape
from elastic_export.passes.base import GraphPass
from elastic_export.passes.narrow import known_zeros
from elastic_runtime.errors import InternalError


class CollapseSkippedLayers(GraphPass):
    """Turn a residual branch that is gated to zero into the identity.

    1. `Add(x, 0)` and `Add(0, x)` become x, where the zero is known by the forward analysis and x has the shape of the
       sum (a broadcast that would change the shape is left alone).

    It must not fire on a branch of which a single channel may be nonzero. What only fed the branch is dead afterwards
    and goes with `RemoveDead`.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See the class."""
        live, modified = known_zeros(model), False
        for node in list(model.graph):
            survivor = _survivor(node, live.is_zero) if node.op_type == "Add" and not node.domain else None
            if survivor is not None:
                replace_uses(node.outputs[0], survivor)
                model.graph.remove(node, safe=True)
                modified = True
        return ir.passes.PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """No sum with a known zero is left."""
        live = known_zeros(model)
        for node in model.graph:
            if node.op_type == "Add" and _survivor(node, live.is_zero) is not None:
                raise InternalError(f"node {node.name}", expected="no sum with zero", found="one left after collapsing")


def _survivor(node: ir.Node, is_zero: Callable[[ir.Value], bool]) -> ir.Value | None:
    for kept, dropped in ((0, 1), (1, 0)):
        # x + 0 is x only where the zero did not broadcast x to a larger shape.
        same_shape = static_shape(operand(node, kept)) == static_shape(node.outputs[0])
        if same_shape and is_zero(operand(node, dropped)):
            return operand(node, kept)
    return None
