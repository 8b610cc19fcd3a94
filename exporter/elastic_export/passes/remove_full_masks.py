"""Pass: remove masks of ones."""

from __future__ import annotations

import onnx_ir as ir

from elastic_export.passes.base import GraphPass, node_error
from elastic_export.passes.values import constant_of, operand, replace_uses, static_shape
from elastic_runtime.errors import InternalError

_PLAIN = {"MaskedRMSNorm": ("", "RMSNormalization"), "MaskedMamba2Mixer": ("elastic", "Mamba2Mixer")}


class RemoveFullMasks(GraphPass):
    """After narrowing every mask is all ones; remove each, so that nothing of the elasticity is left.

    1. `Mul(x, 1)` becomes x where the constant is all ones and x has the shape of the product.
    2. `elastic::MaskedRMSNorm(x, w, 1)` becomes the standard `RMSNormalization(x, w)` over the last axis.
    3. `elastic::MaskedMamba2Mixer(…, 1)` becomes `elastic::Mamba2Mixer(…)`.

    It must not fire on a mask with a zero in it: for 2 and 3 that is an error, for the op without a mask counts every
    channel in its mean.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See the class."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "Mul" and not node.domain:
                modified |= _drop_multiplication(model.graph, node)  # 1
            elif node.domain == "elastic" and node.op_type in _PLAIN:
                _unmask(model.graph, node)  # 2, 3
                modified = True
        model.opset_imports.setdefault("elastic", 1)
        return ir.passes.PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """No masked op and no multiplication by ones is left."""
        for node in model.graph:
            if node.op_type in _PLAIN or (node.op_type == "Mul" and any(_is_ones(v) for v in node.inputs)):
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


def _unmask(graph: ir.Graph, node: ir.Node) -> None:
    if not _is_ones(node.inputs[-1]):
        raise node_error(node, expected="a mask of ones after narrowing", found="a masked channel left")
    domain, op_type = _PLAIN[node.op_type]
    attributes = dict(node.attributes)
    if op_type == "RMSNormalization":
        attributes["axis"] = ir.AttrInt64("axis", -1)
    plain = ir.Node(
        domain, op_type, node.inputs[:-1], attributes.values(), num_outputs=len(node.outputs), name=node.name
    )
    for old, new in zip(node.outputs, plain.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        replace_uses(old, new)
    graph.insert_before(node, plain)
    graph.remove(node, safe=True)
