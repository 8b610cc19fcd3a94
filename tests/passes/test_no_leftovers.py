"""Must-show 4: after all passes nothing is left that the plain sub-model would not have.

The plain sub-model is traced by itself, from an architecture of its own widths, with full masks, through the same
passes. The narrowed graph must be the same node for node: ops, attributes, shapes, types, constants, order. Only the
names of weights differ, for they say the parent's layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from elastic_export.graph.facts import facts_of, tensor_slices
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import sub_model_name
from masked_parent import full_masks
from synthetic import random_architecture, random_budget


def check_plain(parent: Any, budget: Budget, parent_of: Callable[[Architecture], Any], canonical: Any) -> None:
    sub = parent_of(budget.architecture(parent.arch))
    for dtype in (ir.DataType.FLOAT, ir.DataType.BFLOAT16):
        narrowed = parent.narrowed(parent.masks(budget), dtype)
        plain = sub.narrowed(full_masks(sub.arch), dtype)
        names = {name: str(sub_model_name(name, parent.arch, budget)) for name in facts_of(narrowed).weights}
        assert canonical(narrowed, names) == canonical(plain)
        assert len(narrowed.graph.initializers) == len(plain.graph.initializers)
        assert sum(np.prod(w.shape) for w in facts_of(narrowed).weights.values()) == sub.arch.parameters()


def test_a_budget_of_every_axis_leaves_the_plain_sub_model(
    small_parent: Any, tight: Budget, parent_of: Callable[[Architecture], Any], canonical: Any
) -> None:
    check_plain(small_parent, tight, parent_of, canonical)


@pytest.mark.parametrize("seed", [5, 16, 23])
def test_random_budgets_leave_plain_sub_models(
    seed: int, parent_of: Callable[[Architecture], Any], canonical: Any
) -> None:
    rng = np.random.default_rng(seed)
    parent = parent_of(random_architecture(rng))
    check_plain(parent, random_budget(parent.arch, rng), parent_of, canonical)


def test_skipping_all_layers_of_a_kind_leaves_nothing_of_it(
    small_parent: Any, small: Architecture, parent_of: Callable[[Architecture], Any], canonical: Any
) -> None:
    """Without Mamba and attention layers: no mixer, no cache, no state."""
    budget = Budget("mlp", 24, (37, 37), (6, 6), 12, 6, (0, 2, 3))
    check_plain(small_parent, budget, parent_of, canonical)
    model = small_parent.narrowed(small_parent.masks(budget))
    found = {node.op_type for node in model.graph}
    assert not found & {"Mamba2Mixer", "CachedAttention"}
    assert facts_of(model).states == {}
    assert small.pattern.count("-") == 2
    assert sum(node.op_type == "Mul" for node in model.graph) == 2  # the squares of the two MLPs


def test_the_full_budget_is_the_parent(small_parent: Any, canonical: Any) -> None:
    """All masks full: narrowing changes nothing, and only the masks go."""
    masks = full_masks(small_parent.arch)
    model = small_parent.narrowed(masks)
    assert all(part.whole for part in tensor_slices(facts_of(model).weights.values()))
    emitted = small_parent.compile(masks, small_parent.arch)
    assert max(small_parent.errors(emitted, masks).values()) <= 1e-4


def test_comparison_sees_a_node_too_many(small_parent: Any, tight: Budget, canonical: Any) -> None:
    """The comparison bites: an identity, another constant or another shape shows."""
    forms = []
    for change in ("nothing", "node", "constant", "shape"):
        model = small_parent.narrowed(small_parent.masks(tight))
        node = next(node for node in model.graph if node.op_type == "Relu")
        if change == "node":
            extra = ir.node("Identity", [node.inputs[0]])
            model.graph.insert_before(node, extra)
        elif change == "constant":
            constant = next(iter(model.graph.initializers.values()))
            assert constant.const_value is not None
            constant.const_value = ir.tensor(constant.const_value.numpy() + 1)
        elif change == "shape":
            node.outputs[0].shape = ir.Shape(["B", "T", 31])
        forms.append(canonical(model))
    assert all(form != forms[0] for form in forms[1:])
