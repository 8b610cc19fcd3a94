"""Must-show 7 for the liveness rules: with a fault in one, the compile or the comparison fails, for the reason given.

A rule can only ask for more or forget to ask; several rules ask for the same channel, so that some faults heal. These
do not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from elastic_export.graph import standard_rules
from elastic_export.graph.lattices import Liveness
from elastic_export.graph.values import operand
from elastic_export.layers.budget import Budget
from elastic_export.ops.cached_attention import liveness as attention_rule
from elastic_export.ops.last_token import liveness as last_rule
from elastic_export.ops.mamba2_mixer import liveness as mixer_rule
from elastic_export.ops.masked_rms_norm import liveness as norm_rule
from elastic_export.passes.bind_budget import BindBudget
from elastic_export.passes.narrow import analysis, narrow
from elastic_export.passes.narrow.rules import REGISTRY

Patch = pytest.MonkeyPatch
Mixer, Attention = mixer_rule.MaskedMamba2Mixer, attention_rule.CachedAttention


def forget(rule: type[Any], *forgotten: str) -> Callable[[Patch], None]:
    """A fault: `needs` of a rule without its calls of some methods of Liveness."""

    def apply(patch: Patch) -> None:
        original = rule.needs

        def faulty(self: Any, node: ir.Node, live: Liveness) -> None:
            with patch.context() as inner:
                for name in forgotten:
                    inner.setattr(Liveness, name, lambda *args: None)
                original(self, node, live)

        patch.setattr(rule, "needs", faulty)

    apply.__name__ = f"{rule.__name__}_forgets_{'_and_'.join(forgotten)}"
    return apply


def add_absorbs_zero(patch: Patch) -> None:
    """x + 0 taken for 0."""
    patch.setitem(REGISTRY, ("", "Add"), standard_rules.Elementwise(absorbing=True))


def multiply_keeps_all(patch: Patch) -> None:
    """x·0 not known to be 0."""
    patch.setitem(REGISTRY, ("", "Mul"), standard_rules.Elementwise(absorbing=False))


def transpose_forgets_the_permutation(patch: Patch) -> None:
    patch.setattr(standard_rules, "_permutation", lambda node: [0, 1])


def matmul_drops_a_channel(patch: Patch) -> None:
    """The last nonzero channel of the inner axis left out of the sum."""
    original = standard_rules._either

    def faulty(a: Any, b: Any) -> Any:
        zero = original(a, b).copy()
        zero[np.flatnonzero(~zero)[-1:]] = True
        return zero

    patch.setattr(standard_rules, "_either", faulty)


def gather_cuts_rows(patch: Patch) -> None:
    """The last row of a table left out: nobody has asked for it yet."""
    original = Liveness.require

    def faulty(self: Liveness, value: ir.Value, axis: int, channels: np.ndarray[Any, Any]) -> None:
        if str(value.name).endswith("embeddings.weight") and axis == 0:
            channels = np.arange(channels.size) < channels.size - 1
        original(self, value, axis, channels)

    patch.setattr(Liveness, "require", faulty)


def norm_counts_masked_channels(patch: Patch) -> None:
    original = norm_rule.MaskedRMSNorm.needs

    def faulty(self: Any, node: ir.Node, live: Liveness) -> None:
        live.require_all(operand(node, 2))
        original(self, node, live)

    patch.setattr(norm_rule.MaskedRMSNorm, "needs", faulty)


def last_token_shifts_channels(patch: Patch) -> None:
    """The row's needs arrive one channel further."""

    def faulty(self: Any, node: ir.Node, live: Liveness) -> None:
        live.reach(operand(node, 0))
        live.require_all(operand(node, 1))
        live.require(operand(node, 0), 2, np.roll(live.need(node.outputs[0])[1], 1))  # type: ignore[arg-type]

    patch.setattr(last_rule.LastToken, "needs", faulty)


def _flat(size: int, kept: int) -> np.ndarray[Any, Any]:
    return (np.arange(size) < kept).astype(np.float32)


def flat_heads(patch: Patch) -> None:
    """The first heads of all instead of the first of each group."""
    original = BindBudget.__init__

    def faulty(self: BindBudget, masks: dict[str, np.ndarray[Any, Any]]) -> None:
        channels = masks["channels.0"].reshape(6, 12)
        flat = channels[np.argsort(-channels[:, 0], kind="stable")]
        rows = np.concatenate([flat.ravel(), flat.ravel(), np.ones(20), flat[:, 0]]).astype(np.float32)
        original(self, masks | {"channels.0": flat.ravel(), "projected.0": rows})

    patch.setattr(BindBudget, "__init__", faulty)


def flat_heads_unchecked(patch: Patch) -> None:
    """The same, and the mixer's rule does not look."""

    def faulty(self: Any, node: ir.Node, live: Liveness) -> None:
        node.attributes["head_dim"] = ir.AttrInt64("head_dim", int(self._kept(node, live).inside.sum()))

    flat_heads(patch)
    patch.setattr(Mixer, "cut", faulty)


def flat_queries(patch: Patch) -> None:
    original = BindBudget.__init__

    def faulty(self: BindBudget, masks: dict[str, np.ndarray[Any, Any]]) -> None:
        original(self, masks | {"heads.2": _flat(48, 32)})

    patch.setattr(BindBudget, "__init__", faulty)


def flat_queries_unchecked(patch: Patch) -> None:
    flat_queries(patch)
    patch.setattr(Attention, "cut", lambda self, node, live: attention_rule.set_ints(node, num_heads=4))


def mixer_mask_off_by_one(patch: Patch) -> None:
    original = Liveness.zero

    def faulty(self: Liveness, value: ir.Value) -> Any:
        axes = original(self, value)
        return [np.roll(axes[0], 1)] if str(value.name).startswith("mask.channels") else axes  # type: ignore[arg-type]

    patch.setattr(Liveness, "zero", faulty)


def mixer_keeps_head_dim(patch: Patch) -> None:
    patch.setattr(mixer_rule, "set_ints", lambda node, **values: None)


def mixer_swaps_z_and_x(patch: Patch) -> None:
    """Rows x | B | C | z | dt instead of z | x | B | C | dt."""
    patch.setattr(
        mixer_rule._Kept, "projected", property(lambda self: np.concatenate([self.conv, self.channels, self.heads]))
    )


def mixer_cuts_b_and_c(patch: Patch) -> None:
    """B and C of groups narrowed away."""

    def faulty(self: Any) -> Any:
        shared = np.ones(self.shared, bool)
        shared[-1] = False
        return np.concatenate([self.channels, shared])

    patch.setattr(mixer_rule._Kept, "conv", property(faulty))


def mixer_forgets_the_conv_channels_of_x(patch: Patch) -> None:
    """x of every head in the convolution, whatever is masked."""
    patch.setattr(mixer_rule._Kept, "conv", property(lambda self: np.ones(self.channels.size + self.shared, bool)))


def states_are_roots(patch: Patch) -> None:
    """State outputs taken for outputs somebody reads: nothing of a mixer would narrow."""
    original = Liveness.reach

    def faulty(self: Liveness, value: ir.Value) -> None:
        original(self, value)
        if str(value.name).startswith("ssm_state_out"):
            self.need(value)[1][:] = True  # type: ignore[index]

    patch.setattr(Liveness, "reach", faulty)


def ties_go_one_way(patch: Patch) -> None:
    def faulty(self: Liveness, a: ir.Value, axis_a: int, b: ir.Value, axis_b: int) -> None:
        need_a, need_b = self.need(a)[axis_a], self.need(b)[axis_b]
        if need_a is not None and need_b is not None:
            self.require(b, axis_b, need_a)

    patch.setattr(Liveness, "tie", faulty)


def constants_read_one_channel_off(patch: Patch) -> None:
    patch.setattr("elastic_export.graph.lattices._zeros_of", lambda data: [np.roll(data == 0, -1)])


def constants_cut_by_count(patch: Patch) -> None:
    """The first n elements of a mask instead of the needed ones."""
    original = narrow._cut_value

    def faulty(value: ir.Value, live: Liveness) -> bool:
        data = narrow.constant_of(value)
        modified = original(value, live)
        if modified and data is not None:
            value.const_value = ir.tensor(data[: value.const_value.shape[0]], name=value.name)  # type: ignore[union-attr,misc]
        return modified

    patch.setattr(narrow, "_cut_value", faulty)


def mixer_checks_and_adjusts_nothing(patch: Patch) -> None:
    patch.setattr(Mixer, "cut", lambda self, node, live: None)


def logits_are_no_root(patch: Patch) -> None:
    """Logits are no root: nobody needs anything."""
    patch.setattr(analysis, "state_pairs", lambda model: [(v, v) for v in model.graph.outputs])


RULE_FAULTS: dict[Callable[[Patch], None], str] = {
    add_absorbs_zero: r"^error: the sub-model's interface: .*conv_state\.1",
    multiply_keeps_all: r"^error: node Mul_1: expected no mask in a sub-model, found constant \(37,\)",
    forget(
        standard_rules.Elementwise, "tie"
    ): r"^error: value \S*embeddings\.weight: expected at least one live channel an axis",
    forget(
        standard_rules.Unary, "tie"
    ): r"^error: value \S*up_proj\.weight: expected at least one live channel an axis",
    transpose_forgets_the_permutation: r"^builtins\.ValueError: operands could not be broadcast together",
    forget(
        standard_rules.Transpose, "tie"
    ): r"^error: value \S*in_proj\.weight: expected at least one live channel an axis",
    matmul_drops_a_channel: r"^error: weights of the sub-model: .*differing \[\(19, 20\), \(19, 21\), ",
    forget(
        standard_rules.MatMul, "tie"
    ): r"^error: value \S*in_proj\.weight: expected at least one live channel an axis",
    forget(standard_rules.MatMul, "require"): r"^error: node node_embedding \(Gather\): .*found a dead one",
    gather_cuts_rows: r"^error: weights of the sub-model: .*differing \[\(60, 19\)",
    forget(
        standard_rules.Gather, "tie"
    ): r"^error: value \S*embeddings\.weight: expected at least one live channel an axis",
    norm_counts_masked_channels: r"^error: node node_masked_rms_norm \S+: expected a mask of ones after narrowing",
    forget(norm_rule.MaskedRMSNorm, "tie"): r"^error: value \S*embeddings\.weight: expected at least one live channel",
    forget(last_rule.LastToken, "reach"): r"^error: node node_embedding \(Gather\): .*found a dead one",
    last_token_shifts_channels: r"MaskedRMSNorm\): expected a mask of ones after narrowing",
    flat_queries: r"CachedAttention\): expected the same number of query heads in every KV group, found \[3, 1\]",
    flat_queries_unchecked: r"^runs of backbone\.layers\.2\.mixer\.o_proj\.weight, .*logits wrong",
    forget(Attention, "require_all"): r"^error: node node_Transpose_5 \(Transpose\): .*found a dead one",
    forget(Attention, "require"): r"^error: node node_Transpose_4 \(Transpose\): .*found a dead one",
    flat_heads: r"MaskedMamba2Mixer\): expected the same number of heads in every SSM group, found \[3, 1\]",
    flat_heads_unchecked: r"^runs of backbone\.layers\.0\.mixer\.A_log, .*logits wrong, conv_state\.0 wrong",
    mixer_mask_off_by_one: r"MaskedMamba2Mixer\): expected a mask of ones after narrowing",
    mixer_keeps_head_dim: r"^error: node Mamba2Mixer_0: expected .*'head_dim': 7.*found .*'head_dim': 12",
    mixer_swaps_z_and_x: r"^error: node Mul_0: expected no mask in a sub-model, found constant \(80,\)",
    mixer_cuts_b_and_c: r"^error: input conv_state\.0: .*found \('B', 2, 47\)",
    mixer_forgets_the_conv_channels_of_x: r"^error: node Mul_0: expected no mask .*, found constant \(124,\)",
    forget(Mixer, "require"): r"^error: node node_masked_rms_norm \S+: .*found a dead one",
    mixer_checks_and_adjusts_nothing: r"^error: node Mamba2Mixer_0: expected .*'head_dim': 7",
    states_are_roots: r"^error: input ssm_state\.0: .*found \('B', 6, 7, 5\)",
    ties_go_one_way: r"^error: value \S*embeddings\.weight: expected at least one live channel an axis",
    constants_read_one_channel_off: r"MaskedRMSNorm\): expected a mask of ones after narrowing",
    constants_cut_by_count: r"MaskedMamba2Mixer\): expected a mask of ones after narrowing",
    logits_are_no_root: r"^error: node node_embedding \(Gather\): .*found a dead one",
}


@pytest.mark.parametrize("fault", RULE_FAULTS, ids=lambda f: f.__name__)
def test_a_fault_in_a_rule_is_caught(
    fault: Callable[[Patch], None], small_parent: Any, tight: Budget, monkeypatch: Patch
) -> None:
    small_parent.prepare(tight)
    with monkeypatch.context() as patch:
        fault(patch)
        found = small_parent.verdict(tight)
    assert re.search(RULE_FAULTS[fault], found), found
