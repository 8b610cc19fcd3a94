"""The spec of the parent graph bites on whatever it does not know."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from elastic_export.graph.facts import clone_with_facts, facts_of
from elastic_export.passes.narrow.rules import REGISTRY
from elastic_export.trace.spec import PARENT_OPS, check_parent_graph
from elastic_runtime.errors import InternalError


def test_a_traced_graph_passes(traced: ir.Model) -> None:
    check_parent_graph(traced)


def _unknown_op(model: ir.Model) -> None:
    node = next(node for node in model.graph if node.op_type == "Relu")
    node.op_type = "Gelu"


def _unknown_domain(model: ir.Model) -> None:
    node = next(node for node in model.graph if node.op_type == "Relu")
    node.name, node.domain = "culprit", "elsewhere"


def _unknown_input(model: ir.Model) -> None:
    model.graph.inputs.append(ir.val("surprise", ir.DataType.FLOAT, [3]))


def _lost_mask(model: ir.Model) -> None:
    facts_of(model).masks.remove("mask.hidden")


def _lost_pair(model: ir.Model) -> None:
    next(value for value in model.graph.outputs if value.name == "ssm_state_out.0").name = "elsewhere"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            _unknown_op,
            r"expected an op with a liveness rule \(graph/standard_rules\.py, ops/\), found ai\.onnx::Gelu\.",
        ),
        (_unknown_domain, r"^node culprit of the traced parent: .*found elsewhere::Relu"),
        (_unknown_input, r"^inputs of the traced parent: expected tokens, states, masks and weights, .*\['surprise'\]"),
        (_lost_mask, r"differences in \['mask\.hidden'\]"),
        (
            _lost_pair,
            r"^state ssm_state\.0: expected the paired output ssm_state_out\.0, found none\.",
        ),
    ],
)
def test_errors_name_the_culprit(traced: ir.Model, change: Callable[[ir.Model], None], text: str) -> None:
    model = clone_with_facts(traced)
    change(model)
    with pytest.raises(InternalError, match=text) as caught:
        check_parent_graph(model)
    assert caught.value.exit_code == 70


def test_every_op_of_the_spec_has_a_liveness_rule() -> None:
    assert set(REGISTRY) >= PARENT_OPS
