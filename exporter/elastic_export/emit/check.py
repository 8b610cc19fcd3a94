"""The written spec of an emitted graph: the plain sub-model and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir

from elastic_export.graph.facts import Facts, Form, tensor_slices
from elastic_export.graph.standard_rules import STANDARD_RULES
from elastic_export.graph.values import constant_of, int_attribute
from elastic_export.layers.architecture import Architecture
from elastic_export.ops.all_ops import SHIPPED
from elastic_export.ops.op import DOMAIN
from elastic_runtime.errors import InternalError
from elastic_runtime.format.interface import Port

#: What lowerings and casts put in.
_LOWERED = (
    "Cast", "Concat", "DequantizeLinear", "GatherND", "Gemm", "Max", "RMSNormalization", "Reshape", "Shape", "Split",
    "Sub", "Unsqueeze",
)  # fmt: skip
#: Every op an emitted graph may hold.
EMITTED_OPS = frozenset({*((DOMAIN, name) for name in SHIPPED), *(("", name) for name in (*STANDARD_RULES, *_LOWERED))})


def check_emitted(model: ir.Model, arch: Architecture, ports: Sequence[Port], facts: Facts) -> None:
    """Raise InternalError unless the graph is the sub-model of `arch`: its ops, weights and shapes."""
    _check_ops(model)
    _check_inputs(model, ports)
    _check_weights(arch, facts)
    _check_layers(model, arch, facts)
    _check_attributes(model, arch)


def _check_ops(model: ir.Model) -> None:
    for node in model.graph:
        if (node.domain, node.op_type) not in EMITTED_OPS:
            raise InternalError(f"node {node.name}", expected="an op of the emitted set", found=node.op_type)
        if node.op_type == "Mul":
            for value in node.inputs:
                data = constant_of(value)
                if data is not None:
                    raise InternalError(
                        f"node {node.name}", expected="no mask in a sub-model", found=f"constant {data.shape}"
                    )


def _check_inputs(model: ir.Model, ports: Sequence[Port]) -> None:
    for value, port in zip(model.graph.inputs, ports, strict=True):
        shape = tuple(str(d) if isinstance(d, ir.SymbolicDim) else d for d in value.shape or ())
        if value.name != port.name or shape != port.shape:
            raise InternalError(f"input {value.name}", expected=f"{port.name} {port.shape}", found=f"{shape}")


def _check_weights(arch: Architecture, facts: Facts) -> None:
    """The tensors behind the weights, however a pass has merged them, are shaped as in an ordinary checkpoint."""
    expected = list(arch.tensor_shapes().values())
    values = [weight for weight in facts.weights.values() if weight.form != Form.SCALES]
    found = [part.shape for part in tensor_slices(values)]
    if sorted(expected) != sorted(found):
        raise InternalError(
            "weights of the sub-model",
            expected=f"{len(expected)} tensors shaped as its architecture says",
            found=f"{len(found)}, differing {sorted(set(expected) ^ set(found))[:4]}",
        )


def _check_layers(model: ir.Model, arch: Architecture, facts: Facts) -> None:
    """A skipped layer leaves no node: linear layers, norms, mixers and caches are counted."""
    layers = Counter(layer.kind for layer in arch.layers())
    eight_bits = [weight for weight in facts.weights.values() if weight.form == Form.SCALES]
    expected = {
        # And the head; matrices that are joined in eight bits are one product.
        "Gemm": sum(kind.matrices * count for kind, count in layers.items())
        + 1
        - sum(len(weight.parts) - 1 for weight in eight_bits),
        "DequantizeLinear": len(eight_bits),
        "RMSNormalization": len(arch.pattern) + 1,  # one before each layer, one before the head
        **{name: op.count(arch) for name, op in SHIPPED.items()},
    }
    nodes = Counter(node.op_type for node in model.graph)
    found = {op: nodes[op] for op in expected}
    if found != expected:
        raise InternalError("layers of the sub-model", expected=f"{expected}", found=f"{found}")


def _check_attributes(model: ir.Model, arch: Architecture) -> None:
    """Integer attributes are sizes that no shape inference sees: the checker does not look into function bodies."""
    for node in model.graph:
        op = SHIPPED.get(node.op_type) if node.domain == DOMAIN else None
        if op is not None:
            expected = {name: value for name, value in op.expected(arch).items() if op.attributes[name] == "int"}
            found = {name: int_attribute(node, name) for name in expected}
            if found != expected:
                raise InternalError(f"node {node.name}", expected=f"{expected}", found=f"{found}")
