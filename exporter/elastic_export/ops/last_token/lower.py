"""`elastic::LastToken` in standard ops."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from elastic_export.graph.values import Inserter, replace_uses
from elastic_export.ops.last_token import LAST_TOKEN

INT64 = ir.DataType.INT64


def lower(model: ir.Model) -> int:
    """`LastToken(x, length)` becomes `GatherND(x, max(length - 1, 0))` over the batch axis; returns how many did.

    1. A row of length 0 reads row 0; its logits are unspecified.
    """
    insert, nodes = Inserter(model.graph, "last"), [n for n in model.graph if n.op_type == LAST_TOKEN.name]
    for node in nodes:
        x, length, y = (*(LAST_TOKEN.operand(node, name) for name in LAST_TOKEN.inputs), node.outputs[0])
        assert y.dtype is not None
        assert y.shape is not None
        one, zero = insert.constant(np.array(1, np.int64)), insert.constant(np.array(0, np.int64))
        last = insert.op(node, "Sub", [length, one], INT64, ["B"])
        last = insert.op(node, "Max", [last, zero], INT64, ["B"])  # 1
        index = insert.op(node, "Unsqueeze", [last, insert.ints(1)], INT64, ["B", 1])
        row = insert.op(node, "GatherND", [x, index], y.dtype, list(y.shape), batch_dims=1)
        replace_uses(y, row)
        model.graph.remove(node, safe=True)
    return len(nodes)
