"""Pass: remove what the logits do not need."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from elastic_export.graph.facts import facts_of
from elastic_export.passes.base import GraphPass
from elastic_export.passes.narrow.analysis import state_pairs
from elastic_runtime.errors import InternalError


class RemoveDead(GraphPass):
    """Remove states, nodes, weights and constants that the logits do not need.

    1. A state output is a root only where its paired input reaches a root (a fixpoint over the pairs).
    2. Nodes that feed no root go, and initializers without readers.
    3. Inputs without readers go, and their facts with them. Token inputs stay: they are the interface.

    It must not remove a state that is read by a layer which the logits need.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See the class."""
        graph, facts = model.graph, facts_of(model)
        needed = _needed_nodes(model)
        dead_states = [(a, b) for a, b in state_pairs(model) if not _producer_in(b, needed)]
        for before, after in dead_states:  # 1
            graph.outputs.remove(after)
            del facts.states[str(before.name)]
        result = RemoveUnusedNodesPass()(model)  # 2
        unused = [v for v in graph.inputs if not v.uses() and v.name not in ("input_ids", "position", "length")]
        for value in unused:  # 3
            graph.inputs.remove(value)
            facts.weights.pop(str(value.name), None)
        return ir.passes.PassResult(model, modified=bool(dead_states or result.modified or unused))

    def ensures(self, model: ir.Model) -> None:
        """Every node feeds an output, every fact has its input."""
        names = {value.name for value in model.graph.inputs}
        facts = facts_of(model)
        lost = sorted({*facts.states, *facts.weights} - {str(name) for name in names})
        if lost:
            raise InternalError("graph facts", expected="an input for each", found=f"none for {lost}")
        for node in model.graph:
            if not any(output.uses() or output.is_graph_output() for output in node.outputs):
                raise InternalError(f"node {node.name}", expected="a reader", found="a dead node")


def _producer_in(value: ir.Value, nodes: set[ir.Node]) -> bool:
    producer = value.producer()
    return producer is not None and producer in nodes


def _needed_nodes(model: ir.Model) -> set[ir.Node]:
    pairs = state_pairs(model)
    state_outputs = {after for _, after in pairs}
    pending = [value for value in model.graph.outputs if value not in state_outputs]
    needed: set[ir.Node] = set()
    after_of = dict(pairs)
    while pending:
        value = pending.pop()
        if value in after_of:
            pending.append(after_of.pop(value))
        producer = value.producer()
        if producer is not None and producer not in needed:
            needed.add(producer)
            pending += [source for source in producer.inputs if source is not None]
    return needed
