"""The traced parent: names, symbols, attributes, facts, and nothing of the machine it was traced on."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch

from elastic_export.graph.facts import Weight, facts_of
from elastic_export.layers.architecture import Architecture
from elastic_export.opset import OPSET
from elastic_export.reference import state_ports_of
from elastic_export.reference.masks import mask_sizes
from elastic_export.trace import trace
from elastic_export.trace.trace import trace_parent
from elastic_runtime.format.interface import token_ports


def shape(value: ir.Value) -> tuple[int | str, ...]:
    assert value.shape is not None
    return tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)


def only(model: ir.Model, op_type: str) -> ir.Node:
    [node] = [node for node in model.graph if node.op_type == op_type]
    return node


def test_inputs_are_tokens_states_masks_and_weights(traced: ir.Model, arch: Architecture) -> None:
    expected: dict[str, tuple[int | str, ...]] = {port.name: port.shape for port in token_ports()}
    expected |= {port.name: port.shape for port in state_ports_of(arch, "float32")}
    expected |= {f"mask.{name}": (size,) for name, size in mask_sizes(arch).items()}
    expected |= arch.tensor_shapes()
    assert {str(value.name): shape(value) for value in traced.graph.inputs} == expected
    assert not traced.graph.initializers


def test_outputs_are_logits_and_the_states(traced: ir.Model, arch: Architecture) -> None:
    ports = state_ports_of(arch, "float32")
    found = [(value.name, shape(value), value.dtype) for value in traced.graph.outputs]
    expected = [("logits", ("B", arch.vocab_size)), *((port.output, port.shape) for port in ports)]
    assert found == [(*pair, ir.DataType.FLOAT) for pair in expected]


def test_every_value_has_type_shape_and_the_three_symbols_only(traced: ir.Model) -> None:
    for node in traced.graph:
        for output in node.outputs:
            assert output.dtype == ir.DataType.FLOAT
            assert {dim for dim in shape(output) if isinstance(dim, str)} <= {"B", "T", "S"}, node.name


def test_every_token_keeps_the_token_axis(arch: Architecture) -> None:
    model = trace_parent(replace(arch, pattern="-", mamba_heads=()), every_token=True)
    assert shape(model.graph.outputs[0]) == ("B", "T", arch.vocab_size)
    assert not [node for node in model.graph if node.op_type == "LastToken"]
    assert "length" in {value.name for value in model.graph.inputs}


def test_one_node_a_mathematical_step(traced: ir.Model) -> None:
    """No decomposition of norms, attention or mixer; linear layers in one form."""
    assert Counter(node.op_type for node in traced.graph) == {
        "Gather": 1, "Mul": 1 + 3 + 1 + 2 + 1, "Add": 3, "MaskedRMSNorm": 4, "LastToken": 1, "Relu": 1,
        "MaskedMamba2Mixer": 1, "CachedAttention": 1, "MatMul": 9, "Transpose": 9,
    }  # fmt: skip


def test_attributes_carry_the_architecture(traced: ir.Model, arch: Architecture) -> None:
    mixer = only(traced, "MaskedMamba2Mixer")
    found = {name: attribute.value for name, attribute in mixer.attributes.items()}
    assert found == pytest.approx(
        {"n_groups": 2, "head_dim": 12, "state_size": 5, "epsilon": 1e-3, "time_step_min": 0.002, "time_step_max": 0.5}
    )
    attention = {name: a.value for name, a in only(traced, "CachedAttention").attributes.items()}
    assert attention == pytest.approx(
        {
            "num_heads": arch.attention_heads,
            "num_key_value_heads": arch.kv_heads,
            "head_dim": arch.attention_head_dim,
            "scale": arch.attention_head_dim**-0.5,
        }
    )
    norms = [node for node in traced.graph if node.op_type == "MaskedRMSNorm"]
    assert [node.attributes["epsilon"].as_float() for node in norms] == pytest.approx([arch.epsilon] * 4)


def test_facts_know_every_weight_and_state(traced: ir.Model, arch: Architecture) -> None:
    facts = facts_of(traced)
    assert facts.weights == {name: Weight.of(name, shape) for name, shape in arch.tensor_shapes().items()}
    assert facts.tensors() == list(facts.weights)
    assert {name: (s.output, s.kind, s.layer) for name, s in facts.states.items()} == {
        "conv_state.0": ("conv_state_out.0", "conv_state", 0),
        "ssm_state.0": ("ssm_state_out.0", "ssm_state", 0),
        "key_cache.0": ("key_cache_out.0", "key_cache", 2),
        "value_cache.0": ("value_cache_out.0", "value_cache", 2),
    }
    assert facts.states["key_cache.0"].runs == (None, ((0, 2),), None, ((0, 10),))
    assert facts.masks == [f"mask.{name}" for name in mask_sizes(arch)]


def test_proto_holds_nothing_of_this_machine(traced: ir.Model) -> None:
    data = ir.to_proto(traced).SerializeToString()
    for secret in (str(Path.home()), str(Path(__file__).parents[2]), sys.prefix, "site-packages", ".py", "torch"):
        assert secret.encode() not in data, secret
    proto = onnx.load_from_string(data)
    assert proto.producer_name == "elastic-export"
    assert not proto.graph.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == OPSET


def test_decomposing_would_change_nothing(
    traced: ir.Model, arch: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = trace._export

    def with_decomposition(*args: Any) -> torch.export.ExportedProgram:
        program = export(*args)
        del program.run_decompositions  # the class has one
        return program

    monkeypatch.setattr(trace, "_export", with_decomposition)
    assert wiring(trace_parent(arch)) == wiring(traced)


def wiring(model: ir.Model) -> list[object]:
    """Every node with its attributes, its operands by their place in the graph, and its results' shapes."""
    places: dict[ir.Value | None, int] = {value: place for place, value in enumerate(model.graph.inputs)}
    nodes = list[object]()
    for node in model.graph:
        operands = [places[value] for value in node.inputs]
        attributes = sorted((name, attribute.value) for name, attribute in node.attributes.items())
        nodes.append((node.domain, node.op_type, attributes, operands, [shape(value) for value in node.outputs]))
        places.update((value, len(places)) for value in node.outputs)
    return [*nodes, [places[value] for value in model.graph.outputs]]


def test_the_other_prefix_names_the_weights(arch: Architecture) -> None:
    small = replace(arch, pattern="M", ffn_sizes=())
    model = trace_parent(small, "model")
    assert {name: w.shape for name, w in facts_of(model).weights.items()} == small.tensor_shapes("model")


def test_weights_take_no_memory(arch: Architecture) -> None:
    """An MLP of 8 GB of float32 weights is traced in a fraction of that."""
    huge = replace(
        arch, pattern="-", mamba_heads=(), vocab_size=131072, hidden_size=8192, ffn_sizes=(65536,), attention_heads=2
    )
    assert huge.parameters() * 4 > 8 << 30
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = trace_parent(huge)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < 1 << 30
    assert facts_of(model).weights["lm_head.weight"].shape == (131072, 8192)


@pytest.mark.parametrize("pattern", ["*", "MM"])
def test_patterns_of_one_kind(pattern: str, arch: Architecture) -> None:
    model = trace_parent(replace(arch, pattern=pattern, ffn_sizes=(), mamba_heads=(6,) * pattern.count("M")))
    kinds = Counter(state.kind for state in facts_of(model).states.values())
    n = len(pattern)
    assert kinds == ({"key_cache": n, "value_cache": n} if pattern[0] == "*" else {"conv_state": n, "ssm_state": n})
