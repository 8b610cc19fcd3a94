"""Pass: narrow every tensor to its live channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from elastic_export.graph.facts import facts_of, tensor_slices
from elastic_export.graph.lattices import AxisSets, Liveness, known
from elastic_export.graph.values import constant_of, node_error, static_shape
from elastic_export.passes.base import GraphPass
from elastic_export.passes.narrow.analysis import analyse, state_pairs
from elastic_export.passes.narrow.rules import rule_of
from elastic_export.runs import Runs, runs_of
from elastic_runtime.errors import InternalError


class Narrow(GraphPass):
    """Cut dead channels from every weight, state, constant and value that carries them.

    1. Analyse: which channels are known to be zero, which are needed (`analysis`).
    2. Let every node check that it can express what stays, and adjust its attributes.
    3. Cut: weights and states record the runs they keep, constants are compressed, shapes follow.

    It must not fire where a channel is needed without being in the block an op can express: that is an error which
    names the node, never an approximation. It must not cut logits.
    """

    def requires(self, model: ir.Model) -> None:
        """Weights and states are whole, so that positions mean the parent's channels; masks are bound."""
        facts = facts_of(model)
        if facts.masks:
            raise InternalError("narrow", expected="a graph whose budget is bound", found="mask inputs")
        for part in tensor_slices(facts.weights.values()):
            if not part.whole:
                raise InternalError(f"weight {part.tensor}", expected="a whole tensor", found="one narrowed before")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See the class."""
        live = analyse(model)  # 1
        for node in model.graph:  # 2
            if not any(output in live.reached for output in node.outputs):
                raise node_error(node, expected="a node that the logits need, after RemoveDead", found="a dead one")
            rule_of(node).cut(node, live)
        values = [*model.graph.inputs, *model.graph.initializers.values()]
        values += [output for node in model.graph for output in node.outputs]
        modified = [_cut_value(value, live) for value in values]  # 3: refuses an axis of which nothing stays
        _cut_facts(model, live)
        return ir.passes.PassResult(model, modified=any(modified))

    def ensures(self, model: ir.Model) -> None:
        """States keep the shape of their inputs; weights have the shape their runs say."""
        for before, after in state_pairs(model):
            if static_shape(before) != static_shape(after):
                raise InternalError(
                    f"state {before.name}", expected=f"{before.shape}", found=f"{after.shape} coming out"
                )
        inputs = {value.name: value for value in model.graph.inputs}
        for name, weight in facts_of(model).weights.items():
            if static_shape(inputs[name]) != weight.shape:
                raise InternalError(f"weight {name}", expected=f"{weight.shape}", found=f"{inputs[name].shape}")


def _cut_facts(model: ir.Model, live: Liveness) -> None:
    facts, inputs = facts_of(model), {value.name: value for value in model.graph.inputs}
    for name, weight in facts.weights.items():
        facts.weights[name] = weight.cut([known(axis) for axis in live.need(inputs[name])])
    for name, state in facts.states.items():
        facts.states[name] = replace(state, runs=_runs(live.need(inputs[name])))


def _runs(need: AxisSets) -> tuple[Runs | None, ...]:
    return tuple(None if axis is None else runs_of(axis) for axis in need)


def _cut_value(value: ir.Value, live: Liveness) -> bool:
    need = live.need(value)
    if all(axis is None or axis.all() for axis in need):
        return False
    if any(axis is not None and not axis.any() for axis in need):
        raise InternalError(
            f"value {value.name}", expected="at least one live channel an axis", found="an axis of none"
        )
    data = constant_of(value)
    if data is not None:
        kept = data[np.ix_(*(np.flatnonzero(axis) for axis in need if axis is not None))]
        value.const_value = ir.tensor(kept, name=value.name)
    assert value.shape is not None
    dims = [dim if axis is None else int(axis.sum()) for dim, axis in zip(value.shape, need, strict=True)]
    value.shape = ir.Shape(dims)
    return True
