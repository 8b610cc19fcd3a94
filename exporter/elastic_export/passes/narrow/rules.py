"""The rule of every op that a parent graph may hold: those of `graph.standard_rules`, any other in its op's folder."""

from __future__ import annotations

import onnx_ir as ir

from elastic_export.graph.rule import Rule
from elastic_export.graph.standard_rules import STANDARD_RULES
from elastic_export.graph.values import node_error
from elastic_export.ops.all_ops import OPS
from elastic_export.ops.op import DOMAIN

REGISTRY: dict[tuple[str, str], Rule] = {
    **{("", name): rule for name, rule in STANDARD_RULES.items()},
    **{(DOMAIN, op.name): STANDARD_RULES[op.like] if op.like else op.rule for op in OPS},
}


def rule_of(node: ir.Node) -> Rule:
    """The rule of a node's op; an op without one cannot be narrowed exactly, which is an error."""
    try:
        return REGISTRY[node.domain, node.op_type]
    except KeyError:
        raise node_error(
            node, expected="an op with a liveness rule in graph/standard_rules.py or its folder of ops/", found="none"
        ) from None
