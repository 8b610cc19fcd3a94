"""The passes of one budget, in the order of the docstrings."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from elastic_export.graph.facts import clone_with_facts
from elastic_export.layers.budget import Budget
from elastic_export.passes import budget_passes, run_passes


def test_order_of_the_passes() -> None:
    names = [each.name for each in budget_passes({}, ir.DataType.FLOAT, {})]
    assert names == [
        "BindBudget", "CollapseSkippedLayers", "RemoveDead", "Narrow", "RemoveFullMasks", "RenumberStates",
        "AssignPrecision", "LowerLastToken", "LowerLinear", "RemoveDead",
    ]  # fmt: skip


def test_every_pass_says_truly_whether_it_changed_the_graph(small_parent: Any, tight: Budget, canonical: Any) -> None:
    """`modified` against a comparison of the graph before and after each pass."""
    model = clone_with_facts(small_parent.graph)

    def graph() -> tuple[list[str], list[str | None]]:
        return canonical(model), [value.name for value in model.graph.initializers.values()]

    before = graph()
    for each in small_parent.passes(small_parent.masks(tight)):
        modified, after = each(model).modified, graph()
        assert modified == (after != before), each.name
        before = after


def test_compiling_leaves_the_parent_alone(small_parent: Any, tight: Budget, canonical: Any) -> None:
    before = canonical(small_parent.graph)
    small_parent.narrowed(small_parent.masks(tight))
    assert canonical(small_parent.graph) == before
    run_passes(clone_with_facts(small_parent.graph), ())
