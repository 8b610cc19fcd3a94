"""The spec of an emitted graph bites: one change of a good graph each, and the text of the error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from elastic_export.emit import emit_model
from elastic_export.graph.facts import facts_of
from elastic_export.graph.values import initializer
from elastic_runtime.errors import InternalError


def node_of(model: ir.Model, op_type: str) -> ir.Node:
    return next(node for node in model.graph if node.op_type == op_type)


def foreign_op(model: ir.Model) -> None:
    node_of(model, "Relu").op_type = "Gelu"


def leftover_mask(model: ir.Model) -> None:
    node, data = node_of(model, "Mul"), np.ones(30, np.float32)
    node.replace_input_with(1, initializer(model.graph, "leftover", data))


def wrong_head_dim(model: ir.Model) -> None:
    node_of(model, "Mamba2Mixer").attributes["head_dim"] = ir.AttrInt64("head_dim", 12)


def wrong_number_of_heads(model: ir.Model) -> None:
    node_of(model, "CachedAttention").attributes["num_heads"] = ir.AttrInt64("num_heads", 2)


def mask_of_one(model: ir.Model) -> None:
    node = node_of(model, "Mul")
    node.replace_input_with(1, initializer(model.graph, "one", np.ones(1, np.float32)))


def wrong_state_shape(model: ir.Model) -> None:
    next(v for v in model.graph.inputs if v.name == "ssm_state.0").shape = ir.Shape(["B", 6, 7, 5])


def missing_state(model: ir.Model) -> None:
    model.graph.inputs.remove(next(v for v in model.graph.inputs if v.name == "ssm_state.0"))


def extra_output(model: ir.Model) -> None:
    node_of(model, "Relu").outputs[0].name = "surprise"
    model.graph.outputs.append(node_of(model, "Relu").outputs[0])


def lost_weight(model: ir.Model) -> None:
    """Two norms read one weight, and the other is gone from the facts."""
    del facts_of(model).weights["backbone.norm_f.weight"]
    final = next(v for v in model.graph.inputs if v.name == "backbone.norm_f.weight")
    other = next(v for v in model.graph.inputs if v.name == "backbone.layers.0.norm.weight")
    ir.convenience.replace_all_uses_with(final, other)
    model.graph.inputs.remove(final)


def node_too_many(model: ir.Model) -> None:
    norm = node_of(model, "RMSNormalization")
    extra = ir.node("RMSNormalization", norm.inputs, attributes={"axis": -1}, name="twice")
    extra.outputs[0].name, extra.outputs[0].type, extra.outputs[0].shape = (
        "unread",
        norm.outputs[0].type,
        norm.outputs[0].shape,
    )
    model.graph.insert_after(norm, extra)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (foreign_op, r"^node Gelu_0: expected an op of the emitted set, found Gelu\."),
        (leftover_mask, r"^node Mul_\d: expected no mask in a sub-model, found constant \(30,\)\."),
        (wrong_head_dim, r"^node Mamba2Mixer_0: expected \{'n_groups': 2, 'head_dim': 7, .*found .*'head_dim': 12"),
        (wrong_number_of_heads, r"^node CachedAttention_0: expected \{'num_heads': 4, .*found \{'num_heads': 2"),
        (mask_of_one, r"^node Mul_\d: expected no mask in a sub-model, found constant \(1,\)\."),
        (wrong_state_shape, r"^input ssm_state\.0: expected ssm_state\.0 \('B', 4, 7, 5\), found \('B', 6, 7, 5\)\."),
        (missing_state, r"^the sub-model's interface: expected \d+ tensors, found differing \['ssm_state\.0'\]\."),
        (extra_output, r"^the sub-model's interface: .*differing \['surprise'\]"),
        (lost_weight, r"^weights of the sub-model: expected 20 tensors shaped as its architecture says, found 19, "),
        (node_too_many, r"^layers of the sub-model: .*'RMSNormalization': 4, .*found .*'RMSNormalization': 5"),
    ],
)  # fmt: skip
def test_errors_name_what_is_wrong(fault: Callable[[ir.Model], None], text: str, compiled: Any, tmp_path: Path) -> None:
    model = compiled.narrowed()
    fault(model)
    with pytest.raises(InternalError, match=text) as caught:
        emit_model(model, compiled.budget.architecture(compiled.arch), tmp_path / "m.onnx", precision="fp32")
    assert caught.value.exit_code == 70
    assert not (tmp_path / "m.onnx").exists()


def test_parameters_are_counted(compiled: Any, tmp_path: Path) -> None:
    """Another architecture of the same interface is seen by its parameters."""
    wider = replace(compiled.budget.architecture(compiled.arch), ffn_sizes=(31,))
    with pytest.raises(InternalError, match=r"weights of the sub-model: .*differing \[\(20, 30\), \(20, 31\)"):
        emit_model(compiled.narrowed(), wider, tmp_path / "m.onnx", precision="fp32")
