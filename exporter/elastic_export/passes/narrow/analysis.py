"""The analysis: zeros once forward, needs backward to a fixpoint over the graph and its state pairs."""

from __future__ import annotations

import onnx_ir as ir

from elastic_export.graph.facts import facts_of
from elastic_export.graph.lattices import Liveness
from elastic_export.passes.narrow.rules import rule_of


def known_zeros(model: ir.Model) -> Liveness:
    """Forward knowledge only."""
    live = Liveness()
    for node in model.graph:
        rule_of(node).zeros(node, live)
    return live


def state_pairs(model: ir.Model) -> list[tuple[ir.Value, ir.Value]]:
    """(input, output) of every state."""
    inputs = {value.name: value for value in model.graph.inputs}
    outputs = {value.name: value for value in model.graph.outputs}
    return [(inputs[state.input], outputs[state.output]) for state in facts_of(model).states.values()]


def analyse(model: ir.Model) -> Liveness:
    """Zeros and needs of every value.

    The roots are the outputs that are no states. A state output is needed only where its paired input is: the conv
    bias and softplus(dt_bias) keep the states of masked heads from being zero, and nobody reads them.
    """
    live, pairs = known_zeros(model), state_pairs(model)
    paired = {output for _, output in pairs}
    for output in model.graph.outputs:
        if output not in paired:
            live.require_all(output)
    live.changed = True
    while live.changed:
        live.changed = False
        for node in reversed(model.graph):
            if any(output in live.reached for output in node.outputs):
                rule_of(node).needs(node, live)
        for before, after in pairs:
            if before in live.reached:
                live.reach(after)
                for axis in range(len(live.need(before))):
                    live.tie(before, axis, after, axis)
    return live
