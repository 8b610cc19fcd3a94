"""Pass: number the states as the sub-model counts its layers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import onnx_ir as ir

from elastic_export.graph.facts import facts_of
from elastic_export.passes.base import GraphPass
from elastic_export.passes.narrow.analysis import state_pairs
from elastic_runtime.errors import InternalError


class RenumberStates(GraphPass):
    """Rename `conv_state.5` and its output to the number of that layer among the kept ones.

    1. States of one kind are numbered from 0 in the order of their parent layers; the facts keep the parent layer.

    It must not rename weights: they are named by their tensor in the parent, whatever is kept.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See the class."""
        facts, count, modified = facts_of(model), Counter[str](), False
        states, facts.states = facts.states, {}
        inputs = {value.name: value for value in model.graph.inputs}
        outputs = {value.name: value for value in model.graph.outputs}
        for state in sorted(states.values(), key=lambda s: s.layer):  # 1
            ordinal = count[state.kind]
            count[state.kind] += 1
            renamed = replace(state, input=f"{state.kind}.{ordinal}", output=f"{state.kind}_out.{ordinal}")
            inputs[state.input].name, outputs[state.output].name = renamed.input, renamed.output
            facts.states[renamed.input] = renamed
            modified |= renamed != state
        return ir.passes.PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """Names are unique and every state still finds its pair."""
        names = [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
        if len(set(names)) != len(names):
            raise InternalError("states", expected="names that occur once", found=f"{sorted(map(str, names))}")
        state_pairs(model)
