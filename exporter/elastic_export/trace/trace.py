"""Traces the masked parent on tensors without storage and turns it into an `onnx_ir.Model`.

What leaves (checked by `check_parent_graph`): standard ops and those of `ops.all_ops`, float32 throughout;
inputs are the tokens, then states, masks and weights, each known to the model's `Facts`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from elastic_export.graph.facts import Facts, StateSlice, Weight, set_facts
from elastic_export.layers.architecture import Architecture
from elastic_export.ops.all_ops import OPS
from elastic_export.ops.schemas import registered
from elastic_export.opset import OPSET
from elastic_export.reference.masks import mask_sizes
from elastic_export.reference.model import ElasticModel
from elastic_export.reference.state import empty_state, state_ports_of
from elastic_export.trace.spec import check_parent_graph
from elastic_export.trace.translations import translations
from elastic_runtime.format.interface import Port


def trace_parent(arch: Architecture, prefix: str = "backbone", *, every_token: bool = False) -> ir.Model:
    """The parent graph of an architecture; costs no memory for weights.

    Args:
        arch: the parent.
        prefix: name of the backbone in the checkpoint; weights are named as there.
        every_token: logits for all T tokens.
    """
    with _quiet_exporter(), registered(OPS):
        program = _export(arch, prefix, every_token)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            optimize=False,
            verify=False,
            verbose=False,
            opset_version=OPSET,
            custom_translation_table=translations(),
        )
    assert exported is not None
    model = exported.model
    _name_inputs_and_outputs(model, arch)
    _complete_types(model)
    _strip_provenance(model)
    check_parent_graph(model)
    return model


def _export(arch: Architecture, prefix: str, every_token: bool) -> torch.export.ExportedProgram:
    # Any sizes above 1, for they become symbols; distinct, or the trace would take two symbols for one.
    batch, tokens, context = 2, 3, 5
    with torch.device("meta"):
        model = ElasticModel(arch, prefix, every_token=every_token)
        ids = torch.empty(batch, tokens, dtype=torch.int64)
        position, length = torch.empty(batch, dtype=torch.int64), torch.empty(batch, dtype=torch.int64)
        state = empty_state(arch, batch, context, torch.float32, device="meta")
        masks = {name: torch.empty(size) for name, size in mask_sizes(arch).items()}
    B, T, S = (torch.export.Dim(name) for name in "BTS")
    symbols = {"B": B, "T": T, "S": S}
    state_dims = {
        port.name: {axis: symbols[dim] for axis, dim in enumerate(port.shape) if isinstance(dim, str)}
        for port in state_ports_of(arch, "float32")
    }
    shapes = ({0: B, 1: T}, {0: B}, {0: B}, state_dims, dict.fromkeys(masks))
    program = torch.export.export(model, (ids, position, length, state, masks), dynamic_shapes=shapes, strict=False)
    # The model is written in ops that have a translation (what has none belongs in `translations.py`), so
    # decomposing would only trace it a second time, which is two thirds of the work.
    program.run_decompositions = lambda *_: program
    return program


def _name_inputs_and_outputs(model: ir.Model, arch: Architecture) -> None:
    """Give tokens, states, masks and weights their interface names, and record the facts."""
    facts, graph = Facts(), model.graph
    layers = {f"{state.kind}.{layer.ordinal}": layer.index for state, layer in arch.states()}
    ports = state_ports_of(arch, "float32")
    inputs = iter(graph.inputs)
    for name in ("input_ids", "position", "length"):
        next(inputs).name = name
    for port in ports:
        value = next(inputs)
        value.name = port.name
        runs = tuple(((0, dim),) if isinstance(dim, int) else None for dim in port.shape)
        facts.states[port.name] = StateSlice(port.name, port.output, port.kind, layers[port.name], runs)
    for name, value in zip(mask_sizes(arch), inputs, strict=True):
        value.name = f"mask.{name}"
        facts.masks.append(value.name)
    for value, name in zip(graph.outputs, ["logits", *(port.output for port in ports)], strict=True):
        value.name = name
    _weights_become_inputs(model, facts)
    _symbolic_dims(model, ports)
    set_facts(model, facts)


def _weights_become_inputs(model: ir.Model, facts: Facts) -> None:
    for name, value in list(model.graph.initializers.items()):
        assert value.shape is not None
        shape = value.shape.numpy()
        facts.weights[name] = Weight.of(name, shape)
        del model.graph.initializers[name]
        value.const_value = None
        model.graph.inputs.append(value)


def _symbolic_dims(model: ir.Model, states: Sequence[Port]) -> None:
    """Rename the exporter's symbols to B, T and S, wherever they stand."""
    expected: dict[str, tuple[int | str, ...]] = {"input_ids": ("B", "T"), "position": ("B",), "length": ("B",)}
    expected |= {port.name: port.shape for port in states}
    names: dict[str | None, str] = {}
    for value in model.graph.inputs:
        for dim, symbol in zip(value.shape or (), expected.get(value.name or "", ()), strict=False):
            if isinstance(dim, ir.SymbolicDim) and isinstance(symbol, str):
                names.setdefault(dim.value, symbol)
    for value in _all_values(model):
        if value.shape is not None:
            value.shape = ir.Shape(
                [names.get(d.value, d.value) if isinstance(d, ir.SymbolicDim) else d for d in value.shape]
            )


def _all_values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _complete_types(model: ir.Model) -> None:
    """The exporter leaves transposed weights without type and shape."""
    for node in model.graph:
        source, output = node.inputs[0], node.outputs[0]
        if node.op_type == "Transpose" and output.shape is None and source is not None and source.shape is not None:
            output.shape = ir.Shape([source.shape[axis] for axis in node.attributes["perm"].as_ints()])
            output.type = source.type


def _strip_provenance(model: ir.Model) -> None:
    """Remove stack traces and exporter metadata: they hold paths of this machine."""
    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()  # that pass clears graphs and nodes only
    for value in _all_values(model):
        value.metadata_props.clear()
    model.producer_name, model.producer_version = "elastic-export", ""
    model.graph.name = "elastic"


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns about packages we do not use; its errors still come through."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
