"""Pass: remove masks of ones."""

from __future__ import annotations

import onnx_ir as ir

from elastic_export.graph.values import constant_of, node_error, operand, replace_uses, static_shape
from elastic_export.ops.all_ops import OP_OF
from elastic_export.ops.op import DOMAIN, Op
from elastic_export.passes.base import GraphPass
from elastic_runtime.errors import InternalError


class RemoveFullMasks(GraphPass):
    """After narrowing every mask is all ones; remove each, so that nothing of the elasticity is left.

    1. `Mul(x, 1)` becomes x where the constant is all ones and x has the shape of the product.
    2. A masked op, `elastic::MaskedX(…, 1)`, becomes the op that its table entry names: the same without the mask.

    It must not fire on a mask with a zero in it: for 2 that is an error, for the op without a mask counts every channel
    in its mean.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See the class."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "Mul" and not node.domain:
                modified |= _drop_multiplication(model.graph, node)  # 1
            elif (op := _masked(node)) is not None:
                _unmask(model.graph, node, op)  # 2
                modified = True
        # A parent without masked ops of ours would not import their domain yet, and the plain ops are of it.
        model.opset_imports.setdefault(DOMAIN, 1)
        return ir.passes.PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """No masked op and no multiplication by ones is left."""
        for node in model.graph:
            if _masked(node) is not None or (node.op_type == "Mul" and any(_is_ones(v) for v in node.inputs)):
                raise InternalError(f"node {node.name}", expected="no trace of a mask", found=node.op_type)


def _is_ones(value: ir.Value | None) -> bool:
    data = constant_of(value)
    return data is not None and bool((data == 1).all())


def _drop_multiplication(graph: ir.Graph, node: ir.Node) -> bool:
    for kept, mask in ((0, 1), (1, 0)):
        x = operand(node, kept)
        if _is_ones(node.inputs[mask]) and static_shape(x) == static_shape(node.outputs[0]):
            replace_uses(node.outputs[0], x)
            graph.remove(node, safe=True)
            return True
    return False


def _masked(node: ir.Node) -> Op | None:
    """The op of a node that carries a mask; None for any other node."""
    op = OP_OF.get(node.op_type) if node.domain == DOMAIN else None
    return op if op is not None and op.mask is not None else None


def _unmask(graph: ir.Graph, node: ir.Node, op: Op) -> None:
    shipped = op.shipped
    assert op.mask is not None
    assert shipped is not None  # an op that is lowered has no mask
    mask = op.inputs.index(op.mask)
    if not _is_ones(node.inputs[mask]):
        raise node_error(node, expected="a mask of ones after narrowing", found="a masked channel left")
    attributes = [*node.attributes.values(), *(ir.AttrInt64(name, value) for name, value in shipped.added.items())]
    inputs = [*node.inputs[:mask], *node.inputs[mask + 1 :]]
    plain = ir.Node(shipped.domain, shipped.name, inputs, attributes, num_outputs=len(node.outputs), name=node.name)
    for old, new in zip(node.outputs, plain.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        replace_uses(old, new)
    graph.insert_before(node, plain)
    graph.remove(node, safe=True)
