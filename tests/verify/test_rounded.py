"""Each layer by itself: a fault in one layer shows in that layer and nowhere else."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from elastic_export.graph.facts import clone_with_facts, facts_of
from elastic_export.layers.mlp import MLP
from elastic_export.verify.attributes import check_attributes
from elastic_export.verify.plan import POISON
from elastic_export.verify.slices import check_slices
from elastic_runtime.ort.onnx_model import OnnxModel


def norm_of_layer(model: onnx.ModelProto, number: int) -> None:
    """The number-th norm rounded before its weight is applied."""
    node = [n for n in model.graph.node if n.op_type == "RMSNormalization"][number]
    back = next(n for n in model.graph.node if node.output[0] in n.input)
    weight = next(n for n in model.graph.node if node.input[1] in n.output).input[0]
    at = list(model.graph.node).index(node)
    model.graph.node.insert(at, helper.make_node("Div", [node.input[1], node.input[1]], ["faulty:ones"]))
    node.input[1], result, back.output[0] = "faulty:ones", back.output[0], "faulty:normed"
    at = list(model.graph.node).index(back) + 1
    model.graph.node.insert(at, helper.make_node("Mul", ["faulty:normed", weight], [result]))
    del model.graph.value_info[:]


@pytest.mark.parametrize(("number", "layer"), [(0, "0"), (1, "1"), (2, "3"), (3, "4")])
def test_a_fault_in_one_layer_shows_there_alone(compiled: Any, number: int, layer: str) -> None:
    model = compiled("bf16")
    faulty = onnx.load(model.emitted.path)
    norm_of_layer(faulty, number)
    found = model.verify(model.rewritten(faulty))
    assert found.checks[0].passed, "invisible in float32"
    assert [d.tensor for d in found.checks[1].failures if d.tensor.startswith("branch.")] == [f"branch.{layer}"]
    others = [d.tensor for d in found.checks[1].failures if not d.tensor.startswith("branch.")]
    assert all(re.match(r"(conv_state|ssm_state|key_cache|value_cache)\.", name) for name in others), others


def test_a_weight_input_need_not_be_named_as_its_tensor(compiled: Any) -> None:
    """Tensors are looked up by what the facts say, from the trace to the verification."""
    model = compiled("bf16")

    def traced(*arguments: Any, **options: Any) -> ir.Model:
        graph = clone_with_facts(model.trace(*arguments, **options))
        facts, inputs = facts_of(graph), {value.name: value for value in graph.graph.inputs}
        for number, (name, weight) in enumerate(list(facts.weights.items())):
            inputs[name].name = f"weight.{number}"
            facts.weights[f"weight.{number}"] = facts.weights.pop(name)
            assert weight.parts[0].tensor == name
        return graph

    renamed = replace(model, trace=traced)
    emitted = renamed.compile()
    assert all(port.name.startswith("weight.") for port in emitted.weights)
    check_slices(emitted, model.arch, model.budget, model.checkpoint.prefix)
    assert renamed.verify(emitted).passed


def test_a_fault_of_the_head_shows_in_the_logits(compiled: Any) -> None:
    model = compiled("bf16")
    faulty = onnx.load(model.emitted.path)
    norm_of_layer(faulty, 4)
    found = model.verify(model.rewritten(faulty))
    assert [d.tensor for d in found.checks[1].failures] == ["logits"]


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_fault_is_named_by_its_layer(compiled: Any, precision: str) -> None:
    """Layers behind the faulty one compute from what it gave, and are not blamed; a float32 model's neither."""
    model = compiled(precision)
    faulty = onnx.load(model.emitted.path)
    next(node for node in faulty.graph.node if node.op_type == "Relu").op_type = "Identity"
    found = model.verify(model.rewritten(faulty))
    [layer] = [i for i, kind, _ in model.arch.layers() if kind is MLP and i in model.budget.kept_layers(model.arch)]
    assert {d.tensor for d in found.checks[1].failures} == {f"branch.{layer}"}
    assert "logits" in {d.tensor for d in found.checks[0].failures}


def test_unwritten_rows_are_poisoned_in_both_runs(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, fills, empty = compiled("bf16"), list[float](), OnnxModel.empty_state

    def filling(self: OnnxModel, batch: int, context: int, cache_fill: float = 0.0) -> Any:
        fills.append(cache_fill)
        return empty(self, batch, context, cache_fill=cache_fill)

    monkeypatch.setattr(OnnxModel, "empty_state", filling)
    assert model.verify(model.emitted).passed
    kept = set(model.budget.kept_layers(model.arch))
    carrying = [index for index, kind, _ in model.arch.layers() if index in kept and kind.states]
    assert fills == [POISON] * (2 * len(carrying))


def test_every_layer_and_state_is_compared(compiled: Any) -> None:
    model = compiled("bf16")
    tensors = {d.tensor for d in model.verify(model.emitted).checks[1].comparison.differences}
    layers = {f"{kind}.{i}" for kind in ("branch", "residual") for i in (0, 1, 3, 4)}
    assert tensors == {"logits", *layers, *(s.input for s in model.emitted.state_slices)}


def test_attributes_are_read_from_the_file(compiled: Any) -> None:
    model = compiled("bf16")
    file, arch = onnx.load(model.emitted.path), model.emitted.architecture
    right = check_attributes(file, arch)
    assert right.worst.error == 0.0
    assert {d.tensor for d in right.differences} == {
        "RMSNormalization.epsilon",
        *(f"Mamba2Mixer.{name}" for name in ("n_groups", "head_dim", "state_size", "epsilon")),
        "Mamba2Mixer.time_step_min",
        "Mamba2Mixer.time_step_max",
        *(f"CachedAttention.{name}" for name in ("num_heads", "num_key_value_heads", "head_dim", "scale")),
    }
    for change in (
        {"epsilon": 1.1e-5},
        {"ssm_groups": 4},
        {"ssm_state": 15},
        {"time_step_limit": (0.0, 0.05)},
        {"attention_heads": 8},
        {"attention_head_dim": 20},
    ):
        assert check_attributes(file, replace(arch, **change)).worst.error > 1e-3, change
    unlimited = replace(arch, time_step_limit=(0.002, float("inf")))
    assert check_attributes(file, unlimited).worst.error == float("inf")


def test_a_cast_to_a_narrow_type_is_a_rounding_in_the_rounded_run_only(compiled: Any) -> None:
    """The SSM state through BF16 outside the mixer: its input, so every later state of the run is off by a rounding."""
    model = compiled("bf16")
    faulty = onnx.load(model.emitted.path)
    node = next(n for n in faulty.graph.node if n.op_type == "Mamba2Mixer")
    at = list(faulty.graph.node).index(node)
    faulty.graph.node.insert(at, helper.make_node("Cast", ["faulty:n"], ["faulty:w"], to=TensorProto.FLOAT))
    faulty.graph.node.insert(at, helper.make_node("Cast", [node.input[9]], ["faulty:n"], to=TensorProto.BFLOAT16))
    node = next(n for n in faulty.graph.node if n.op_type == "Mamba2Mixer")
    node.input[9] = "faulty:w"
    found = model.verify(model.rewritten(faulty))
    assert found.checks[0].passed
    assert "ssm_state.0" in [d.tensor for d in found.checks[1].failures]
