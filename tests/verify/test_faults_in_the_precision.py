"""Must-show 7 for the precision pass: with a fault in it, the compile or verification fails, for the reason given.

In float32 the pass does nothing, so that the comparison of float32 files, which finds the faults of the other passes,
does not see it. Here a narrow model is compiled with the fault and goes through the real `verify_budget`.
"""

from __future__ import annotations

import re
from typing import Any

import onnx_ir as ir
import pytest

from elastic_export.graph.facts import facts_of
from elastic_export.passes.assign_precision import AssignPrecision
from elastic_runtime.errors import ElasticError

Patch = pytest.MonkeyPatch
FLOAT = ir.DataType.FLOAT


def norms_computed_narrow(patch: Patch) -> None:
    patch.setattr(AssignPrecision, "_compute_wide", lambda self, node, inserter: None)


def recurrent_state_narrow(patch: Patch) -> None:
    original = AssignPrecision.call

    def faulty(self: AssignPrecision, model: ir.Model) -> Any:
        result, facts = original(self, model), facts_of(model)
        names = {name for s in facts.states.values() if s.kind == "ssm_state" for name in (s.input, s.output)}
        for value in (*model.graph.inputs, *model.graph.outputs):
            if value.name in names:
                value.type = ir.TensorType(self._dtype)
        return result

    patch.setattr(AssignPrecision, "call", faulty)


def conv_states_and_caches_wide(patch: Patch) -> None:
    original = AssignPrecision.call

    def faulty(self: AssignPrecision, model: ir.Model) -> Any:
        result = original(self, model)
        for value in (*model.graph.inputs, *model.graph.outputs):
            if str(value.name).startswith(("conv_state", "key_cache", "value_cache")):
                value.type = ir.TensorType(FLOAT)
        return result

    patch.setattr(AssignPrecision, "call", faulty)


def logits_left_narrow(patch: Patch) -> None:
    patch.setattr(AssignPrecision, "_cast_logits", lambda self, model, inserter: None)


def another_narrow_dtype(patch: Patch) -> None:
    """The values in the other narrow dtype than the weights."""
    original, other = AssignPrecision.__init__, {ir.DataType.BFLOAT16: ir.DataType.FLOAT16}

    def faulty(self: AssignPrecision, dtype: ir.DataType, stored: Any) -> None:
        original(self, other.get(dtype, ir.DataType.BFLOAT16), stored)

    patch.setattr(AssignPrecision, "__init__", faulty)


PRECISION_FAULTS = {
    norms_computed_narrow: r"^rounded: .*branch\.\d",
    recurrent_state_narrow: r"^error: state ssm_state\.\d: expected FLOAT, found (BFLOAT16|FLOAT16)",
    conv_states_and_caches_wide: r"^error: state conv_state\.\d: expected (BFLOAT16|FLOAT16), found FLOAT",
    logits_left_narrow: r"^error: logits: expected float32, found (BFLOAT16|FLOAT16)",
    another_narrow_dtype: r"^error: node \S+ .*operands, found \S+ in (BFLOAT16|FLOAT16)",
}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("made", PRECISION_FAULTS, ids=lambda made: made.__name__)
def test_a_fault_in_the_precision_pass_is_caught(
    compiled: Any, outcome: Any, precision: str, made: Any, monkeypatch: Patch
) -> None:
    model = compiled(precision)
    with monkeypatch.context() as patch:
        made(patch)
        try:
            found = outcome(model, model.compile())
        except ElasticError as error:
            found = f"error: {error}"
    assert re.search(PRECISION_FAULTS[made], found), found
