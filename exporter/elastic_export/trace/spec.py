"""The written spec of the parent graph, checked when it leaves the trace."""

from __future__ import annotations

import onnx_ir as ir

from elastic_export.graph.facts import facts_of
from elastic_export.graph.standard_rules import STANDARD_RULES
from elastic_export.ops.all_ops import OPS
from elastic_export.ops.op import DOMAIN
from elastic_runtime.errors import InternalError

#: Every op the parent graph may hold: the standard ones with a liveness rule, and ours.
PARENT_OPS = frozenset({*(("", name) for name in STANDARD_RULES), *((DOMAIN, op.name) for op in OPS)})


def check_parent_graph(model: ir.Model) -> None:
    """Raise InternalError unless the graph holds known ops only and every input is known to the facts.

    The ops are what another PyTorch or another model may change. The inputs and the states' outputs are a self-check:
    `trace` has named them and written the facts in one go, so they differ only where `trace` is wrong.
    """
    for node in model.graph:
        if (node.domain, node.op_type) not in PARENT_OPS:
            raise InternalError(
                f"node {node.name} of the traced parent",
                expected="an op with a liveness rule (graph/standard_rules.py, ops/)",
                found=f"{node.domain or 'ai.onnx'}::{node.op_type}",
            )
    facts = facts_of(model)
    known = {"input_ids", "position", "length", *facts.states, *facts.masks, *facts.weights}
    found = {value.name for value in model.graph.inputs}
    if found != known:
        raise InternalError(
            "inputs of the traced parent",
            expected="tokens, states, masks and weights",
            found=f"differences in {sorted(str(name) for name in found ^ known)}",
        )
    for state in facts.states.values():
        if state.output not in {value.name for value in model.graph.outputs}:
            raise InternalError(f"state {state.input}", expected=f"the paired output {state.output}", found="none")
