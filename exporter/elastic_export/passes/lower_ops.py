"""Pass: lower an op of the parent graph."""

from __future__ import annotations

import onnx_ir as ir

from elastic_export.ops.op import Op
from elastic_export.passes.base import GraphPass
from elastic_runtime.errors import InternalError


class LowerOp(GraphPass):
    """Lower one op of the parent graph to standard ops.

    1. All its nodes go; what each becomes stands in `lower.py` of the op's folder, numbered there.

    It must not fire on any other op.
    """

    def __init__(self, op: Op) -> None:
        self._op = op

    @property
    def name(self) -> str:
        """`Lower` and the op."""
        return f"Lower{self._op.name}"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See the class."""
        return ir.passes.PassResult(model, modified=self._op.lower(model) > 0)  # 1

    def ensures(self, model: ir.Model) -> None:
        """None is left."""
        if any(node.op_type == self._op.name for node in model.graph):
            raise InternalError(self._op.name, expected="none after lowering", found="one")
