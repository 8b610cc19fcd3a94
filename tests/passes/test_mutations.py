"""Must-show 7: one fault in any pass or liveness rule, and the compile or the comparison fails, for the reason given.

Each fault is built into the running code for one compile of one budget that cuts every axis. What catches it is one of:
an error of the compile (its text is given), weights whose runs differ from the independent statement (`runs`), or
outputs far from the masked parent (named by tensor).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from elastic_export.graph.facts import TensorSlice, facts_of
from elastic_export.graph.lattices import Liveness
from elastic_export.graph.values import Inserter, static_shape
from elastic_export.layers.budget import Budget
from elastic_export.ops.cached_attention import liveness as attention_rule
from elastic_export.ops.last_token import lower as lower_last_token
from elastic_export.passes import lower_linear
from elastic_export.passes.bind_budget import BindBudget
from elastic_export.passes.narrow import Narrow, narrow
from elastic_export.passes.remove_dead import RemoveDead
from elastic_export.passes.remove_full_masks import RemoveFullMasks
from elastic_export.passes.renumber_states import RenumberStates

Patch = pytest.MonkeyPatch


def test_nothing_is_caught_without_a_fault(small_parent: Any, tight: Budget) -> None:
    small_parent.prepare(tight)
    assert small_parent.verdict(tight) == ""


# ------------------------------------------------------------------------------------------------------ the passes


def bind_mask_off_by_one(patch: Patch) -> None:
    original = BindBudget.__init__

    def faulty(self: BindBudget, masks: dict[str, np.ndarray[Any, Any]]) -> None:
        original(self, masks | {name: np.roll(m, 1) for name, m in masks.items() if name.startswith("ffn")})

    patch.setattr(BindBudget, "__init__", faulty)


def bind_leaves_a_mask(patch: Patch) -> None:
    original = BindBudget.__init__

    def faulty(self: BindBudget, masks: dict[str, np.ndarray[Any, Any]]) -> None:
        original(self, {name: m for name, m in masks.items() if name != "hidden"})

    patch.setattr(BindBudget, "__init__", faulty)


def bind_wrong_layer(patch: Patch) -> None:
    original = BindBudget.__init__

    def faulty(self: BindBudget, masks: dict[str, np.ndarray[Any, Any]]) -> None:
        swapped = {"projected.0": "projected.3", "projected.3": "projected.0"}
        swapped |= {
            name.replace("projected", "channels"): to.replace("projected", "channels") for name, to in swapped.items()
        }
        original(self, {name: masks[swapped.get(name, name)] for name in masks})

    patch.setattr(BindBudget, "__init__", faulty)


def collapse_a_branch_with_any_zero(patch: Patch) -> None:
    patch.setattr(Liveness, "is_zero", lambda self, v: any(a is not None and a.any() for a in self.zero(v)))


def collapse_nothing(patch: Patch) -> None:
    patch.setattr("elastic_export.passes.collapse_layers._survivor", lambda node, is_zero: None)


def dead_states_stay(patch: Patch) -> None:
    """State outputs as roots: the mixer of a skipped layer lives on."""
    patch.setattr("elastic_export.passes.remove_dead.state_pairs", lambda model: [])


def states_never_live(patch: Patch) -> None:
    """The fixpoint over the pairs forgotten: a state output is no root, whoever reads its input."""
    patch.setattr("elastic_export.passes.remove_dead._producer_in", lambda value, nodes: False)


def dead_nodes_stay(patch: Patch) -> None:
    patch.setattr(RemoveDead, "call", lambda self, model: ir.passes.PassResult(model, False))
    patch.setattr(RemoveDead, "ensures", lambda self, model: None)


def live_states_go(patch: Patch) -> None:
    original = RemoveDead.call

    def faulty(self: RemoveDead, model: ir.Model) -> Any:
        facts = facts_of(model)
        name = "ssm_state_out.1"
        for value in [value for value in model.graph.outputs if value.name == name]:
            model.graph.outputs.remove(value)
            del facts.states["ssm_state.1"]
        return original(self, model)

    patch.setattr(RemoveDead, "call", faulty)


def constants_cut_as_prefix(patch: Patch) -> None:
    def faulty(need: Any) -> Any:
        return tuple(None if axis is None else ((0, int(axis.sum())),) for axis in need)

    patch.setattr(narrow, "_runs", faulty)
    patch.setattr(TensorSlice, "cut", lambda self, keep: replace(self, runs=faulty(keep)))


def narrow_nothing(patch: Patch) -> None:
    patch.setattr(Narrow, "call", lambda self, model: ir.passes.PassResult(model, False))


def masks_removed_unread(patch: Patch) -> None:
    narrow_nothing(patch)
    patch.setattr("elastic_export.passes.remove_full_masks._is_ones", lambda v: v is not None and v.is_initializer())


def norm_forgets_epsilon(patch: Patch) -> None:
    original = RemoveFullMasks.call

    def faulty(self: RemoveFullMasks, model: ir.Model) -> Any:
        result = original(self, model)
        for node in model.graph:
            if node.op_type == "RMSNormalization":
                del node.attributes["epsilon"]
        return result

    patch.setattr(RemoveFullMasks, "call", faulty)


def states_numbered_backwards(patch: Patch) -> None:
    original = RenumberStates.call

    def faulty(self: RenumberStates, model: ir.Model) -> Any:
        facts, last = facts_of(model), 9
        facts.states = {name: replace(s, layer=last - s.layer) for name, s in facts.states.items()}
        result = original(self, model)
        facts.states = {name: replace(s, layer=last - s.layer) for name, s in facts.states.items()}
        return result

    patch.setattr(RenumberStates, "call", faulty)


def state_outputs_swapped(patch: Patch) -> None:
    original = RenumberStates.call

    def faulty(self: RenumberStates, model: ir.Model) -> Any:
        result = original(self, model)
        keys, values = (
            next(v for v in model.graph.outputs if v.name == f"{kind}_cache_out.0") for kind in ("key", "value")
        )
        keys.name, values.name = values.name, keys.name
        return result

    patch.setattr(RenumberStates, "call", faulty)


def attention_keeps_its_number_of_heads(patch: Patch) -> None:
    patch.setattr(attention_rule, "set_ints", lambda node, **values: None)


def last_token_is_the_next(patch: Patch) -> None:
    class Next(Inserter):
        def op(self, before: ir.Node, op_type: str, inputs: Any, *rest: Any, **attributes: Any) -> ir.Value:
            zero = [inputs[0], self.constant(np.array(0, np.int64))]
            return super().op(before, op_type, zero if op_type == "Sub" else inputs, *rest, **attributes)

    patch.setattr(lower_last_token, "Inserter", Next)


def linear_untransposed(patch: Patch) -> None:
    original = Inserter.op

    def faulty(self: Inserter, before: ir.Node, op_type: str, *rest: Any, **attributes: Any) -> Any:
        return original(self, before, op_type, *rest, **(attributes | ({"transB": 0} if op_type == "Gemm" else {})))

    patch.setattr(Inserter, "op", faulty)


def linear_reads_a_stale_operand(patch: Patch) -> None:
    original, first = lower_linear._Lowering._flatten, {}

    def faulty(self: Any, node: ir.Node, x: ir.Value) -> ir.Value:
        flat = original(self, node, x)
        return first.setdefault((id(self), static_shape(x)[-1]), flat)  # type: ignore[no-any-return]

    patch.setattr(lower_linear._Lowering, "_flatten", faulty)


PASS_FAULTS: dict[Callable[[Patch], None], str] = {
    bind_mask_off_by_one: r"^runs of backbone\.layers\.4\.mixer\.down_proj\.weight.*logits wrong",
    bind_leaves_a_mask: r"^error: masks of the budget: expected those of the parent graph, found mask\.hidden\.",
    bind_wrong_layer: r"^error: the sub-model's interface|^error: input conv_state\.0: expected",
    collapse_a_branch_with_any_zero: r"^error: .*(differing|expected)",
    collapse_nothing: r"^error: ",
    dead_states_stay: r"^error: node node_masked_rms_norm \S+: expected a node that the logits need, after RemoveDead,",
    states_never_live: r"^error: the sub-model's interface: .*conv_state_out\.0",
    dead_nodes_stay: r"^error: node \S+ .*expected a node that the logits need, after RemoveDead, found a dead one\.",
    live_states_go: r"^error: the sub-model's interface: .*ssm_state_out\.1",
    constants_cut_as_prefix: r"^runs of backbone\.layers\.0\.mixer\.A_log.*logits wrong",
    narrow_nothing: r"^error: node \S+ .*expected a mask of ones after narrowing, found a masked channel left",
    masks_removed_unread: r"^error: input conv_state\.0: expected",
    norm_forgets_epsilon: r"^(conv_state\.\d wrong, )?.*logits wrong",
    states_numbered_backwards: r"conv_state|ssm_state",
    state_outputs_swapped: r"key_cache\.0 wrong",
    attention_keeps_its_number_of_heads: r"^error: node CachedAttention_0: expected .*'num_heads': 4.*found .*: 6",
    last_token_is_the_next: r"^onnxruntime\.\S+InvalidArgument: .*GatherND.*invalid index",
    linear_untransposed: r"InferenceError: .*op_type:Gemm.*Dimension mismatch",
    linear_reads_a_stale_operand: r"^error: weights of the sub-model: expected 29 tensors .*, found 26",
}


#: Faults that need other skipped layers to show: a Mamba layer, here.
SKIPPED = {dead_states_stay: (0, 1), collapse_a_branch_with_any_zero: ()}


@pytest.mark.parametrize("fault", PASS_FAULTS, ids=lambda f: f.__name__)
def test_a_fault_in_a_pass_is_caught(
    fault: Callable[[Patch], None], small_parent: Any, tight: Budget, monkeypatch: Patch
) -> None:
    budget = replace(tight, skip_layers=SKIPPED.get(fault, tight.skip_layers))
    small_parent.prepare(budget)
    with monkeypatch.context() as patch:
        fault(patch)
        found = small_parent.verdict(budget)
    assert re.search(PASS_FAULTS[fault], found), found
