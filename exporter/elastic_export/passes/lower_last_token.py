"""Pass: lower the choice of the last token."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from elastic_export.passes.base import GraphPass
from elastic_export.passes.values import Inserter, operand, replace_uses
from elastic_runtime.errors import InternalError

INT64 = ir.DataType.INT64


class LowerLastToken(GraphPass):
    """Lower `elastic::LastToken(x, length)` to `GatherND(x, max(length - 1, 0))` over the batch axis.

    1. A row of length 0 reads row 0; its logits are unspecified.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See the class."""
        insert, modified = Inserter(model.graph, "last"), False
        for node in [n for n in model.graph if n.op_type == "LastToken"]:
            x, length, y = operand(node, 0), operand(node, 1), node.outputs[0]
            assert y.dtype is not None
            assert y.shape is not None
            one, zero = insert.constant(np.array(1, np.int64)), insert.constant(np.array(0, np.int64))
            last = insert.op(node, "Sub", [length, one], INT64, ["B"])
            last = insert.op(node, "Max", [last, zero], INT64, ["B"])  # 1
            index = insert.op(node, "Unsqueeze", [last, insert.ints(1)], INT64, ["B", 1])
            row = insert.op(node, "GatherND", [x, index], y.dtype, list(y.shape), batch_dims=1)
            replace_uses(y, row)
            model.graph.remove(node, safe=True)
            modified = True
        return ir.passes.PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """None is left."""
        if any(node.op_type == "LastToken" for node in model.graph):
            raise InternalError("LastToken", expected="none after lowering", found="one")
