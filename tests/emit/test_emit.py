"""The file that ships: its interface, its validity, the same bytes from any process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import elastic_export
import elastic_runtime
from elastic_export.emit import ModelFile, emit_model, read_model_file
from elastic_export.emit.embed import read_weight
from elastic_export.graph.facts import tensor_slices
from elastic_export.layers.kept import tensor_runs
from elastic_export.products import TENSORRT, TENSORRT_RTX, Product
from elastic_export.reference import budget_masks, empty_state
from elastic_runtime.errors import InternalError
from elastic_runtime.format.interface import token_ports
from masked_parent import load_reference
from weight_slices import slices_of

ELEMENT = {"float32": onnx.TensorProto.FLOAT, "bfloat16": onnx.TensorProto.BFLOAT16, "int64": onnx.TensorProto.INT64}


def table(values: Any) -> list[tuple[str, int, tuple[Any, ...]]]:
    return [
        (v.name, v.type.tensor_type.elem_type, tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim))
        for v in values
    ]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_interface_is_the_written_one(precision: str, compiled: Any, tmp_path: Path) -> None:
    """Order, names, dtypes and shapes of inputs and outputs, as consumers read them; SSM states are float32."""
    model = compiled.emit(tmp_path / "model.onnx", precision)
    proto = onnx.load(model.path)
    sub = compiled.budget.architecture(compiled.arch)
    ports = [(p.name, ELEMENT[p.dtype], p.shape) for p in (*model.ports, *model.weights)]
    assert table(proto.graph.input) == ports
    outputs = [(model.logits.name, ELEMENT["float32"], ("B", sub.vocab_size))]
    outputs += [(s.output, ELEMENT[s.dtype], s.shape) for s in model.states()]
    assert table(proto.graph.output) == outputs
    assert [p.name for p in model.ports[:3]] == [p.name for p in token_ports()]
    narrow = "bfloat16" if precision == "bf16" else "float32"
    assert {p.kind: p.dtype for p in model.states()} == {
        "conv_state": narrow, "ssm_state": "float32", "key_cache": narrow, "value_cache": narrow
    }  # fmt: skip
    assert {p.dtype for p in model.weights} == {narrow}
    assert model.ops == {"Mamba2Mixer": 1, "CachedAttention": 1}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_file_is_read_back_as_it_was_emitted(precision: str, compiled: Any, tmp_path: Path) -> None:
    """An engine of a later export is built from it as one of the first was."""
    model = compiled.emit(tmp_path / "model.onnx", precision)
    found = read_model_file(model.path, model.architecture, precision=precision)
    assert found == ModelFile(**{field.name: getattr(model, field.name) for field in fields(ModelFile)})
    assert (len(found.weights), found.ops) == (len(model.weight_sources), {"Mamba2Mixer": 1, "CachedAttention": 1})


def test_a_file_of_other_layers_is_not_taken_for_that_sub_models(compiled: Any, tmp_path: Path) -> None:
    model = compiled.emit(tmp_path / "model.onnx")
    more = replace(model.architecture, pattern="MM", mamba_heads=(4, 4), ffn_sizes=())
    with pytest.raises(InternalError, match=r"inputs of .*model\.onnx: expected first \['input_ids'.*'conv_state\.1'"):
        read_model_file(model.path, more, precision="fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_file_is_valid_and_small(precision: str, compiled: Any, tmp_path: Path) -> None:
    """The checker of ONNX with full shape inference; no weights, no names of the parent's nodes, a function an op."""
    path = compiled.emit(tmp_path / "model.onnx", precision).path
    onnx.checker.check_model(str(path), full_check=True)
    proto = onnx.load(path)
    assert [(f.domain, f.name) for f in proto.functions] == [("elastic", "Mamba2Mixer"), ("elastic", "CachedAttention")]
    assert {(o.domain, o.version) for o in proto.opset_import} == {("", 24), ("elastic", 1)}
    assert sum(np.prod(t.dims) for t in proto.graph.initializer) < 100
    assert all(node.name == f"{node.op_type}_{node.name.rsplit('_', 1)[1]}" for node in proto.graph.node)
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize(("product", "precision", "fused"), [(TENSORRT_RTX, "bf16", True), (TENSORRT, "bf16", False)])
def test_attention_is_one_node_without_a_mask_in_the_form_of_the_product(
    product: Product, precision: str, fused: bool, compiled: Any, tmp_path: Path
) -> None:
    """What a token sees is said inside the op: nothing of the size of a mask is left in the graph for a plugin."""
    sub = compiled.budget.architecture(compiled.arch)
    model = emit_model(compiled.narrowed(precision), sub, tmp_path / "m.onnx", precision=precision, product=product)
    proto = onnx.load(model.path)
    (node,) = [node for node in proto.graph.node if node.op_type == "CachedAttention"]
    assert list(node.input)[3:] == ["key_cache.0", "value_cache.0", "position"]
    assert list(node.output)[1:] == ["key_cache_out.0", "value_cache_out.0"]
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert found == {"num_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "scale": 0.25}
    assert {n.op_type for n in proto.graph.node}.isdisjoint({"Range", "LessOrEqual", "Where", "TensorScatter"})
    (body,) = [function for function in proto.functions if function.name == "CachedAttention"]
    assert ("Attention" in {n.op_type for n in body.node}) == fused


def test_weights_say_their_slices(emitted: Any, compiled: Any) -> None:
    runs = tensor_runs(compiled.arch, compiled.budget)
    assert {part.tensor: part.runs for part in tensor_slices(emitted.weight_sources.values())} == runs
    assert [(port.name, port.shape) for port in emitted.weights] == [
        (name, weight.shape) for name, weight in emitted.weight_sources.items()
    ]
    assert [s.input for s in emitted.state_slices] == [port.name for port in emitted.states()]


def test_file_runs_from_its_bytes(emitted: Any, compiled: Any, session: Callable[..., Any]) -> None:
    """The file alone, loaded back, against the reference."""
    ids = np.random.default_rng(0).integers(0, compiled.arch.vocab_size, (1, 6))
    feed: dict[str, Any] = {"input_ids": ids, "position": np.array([0]), "length": np.array([6])}
    feed |= {p.name: np.zeros([{"B": 1, "S": 8}.get(d, d) for d in p.shape], np.float32) for p in emitted.states()}
    feed |= {name: read_weight(w, slices_of(compiled.weights)) for name, w in emitted.weight_sources.items()}
    logits = session(emitted.path.read_bytes()).run(["logits"], feed)[0]
    reference = load_reference(compiled.arch, compiled.weights.__getitem__)
    state, masks = empty_state(compiled.arch, 1, 8, torch.float32), budget_masks(compiled.arch, compiled.budget)
    expected, _ = reference(torch.from_numpy(ids), torch.tensor([0]), torch.tensor([6]), state, masks)
    assert np.linalg.norm(logits - expected.numpy()) <= 1e-5 * float(expected.norm())


_EMIT = """
import hashlib, sys
from pathlib import Path
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.emit import emit_model
from elastic_export.graph.facts import facts_of
from elastic_export.trace.trace import trace_parent
from elastic_export.passes import budget_passes, run_passes
from elastic_export.reference import budget_masks
import onnx_ir as ir
arch = Architecture("M*-", 61, 24, (37,), (6,), 12, 2, 5, 3, 4, 2, 16, 1e-3, (0.002, 0.5))
budget = Budget("small", 20, (30,), (4,), 7, 4, ())
model, dtype = trace_parent(arch), ir.DataType.BFLOAT16
masks = {name: mask.numpy() for name, mask in budget_masks(arch, budget).items()}
run_passes(model, budget_passes(masks, dtype, dict.fromkeys(facts_of(model).tensors(), dtype)))
emit_model(model, budget.architecture(arch), Path(sys.argv[1]), precision="bf16")
"""


def test_two_processes_write_the_same_bytes(compiled: Any, tmp_path: Path) -> None:
    """Whatever the seed of hashes: a process of its own against this one, which has compiled other budgets before."""
    roots = {str(Path(package.__file__ or "").parents[1]) for package in (elastic_export, elastic_runtime)}
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sorted(roots))}
    subprocess.run([sys.executable, "-c", _EMIT, str(tmp_path / "other.onnx")], check=True, env=environment)
    compiled.emit(tmp_path / "before.onnx")
    mine = compiled.emit(tmp_path / "mine.onnx", "bf16").path
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (mine, tmp_path / "other.onnx")}
    assert len(digests) == 1
