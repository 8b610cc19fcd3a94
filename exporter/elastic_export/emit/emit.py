"""Writes one budget's graph as the ONNX file that ships."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedOpsetsPass

from elastic_export.dtypes import DTYPES, of_ir
from elastic_export.emit.check import check_emitted
from elastic_export.emit.embed import ReadSlice, embed_weights
from elastic_export.graph.facts import StateSlice, Weight, facts_of
from elastic_export.layers.architecture import Architecture
from elastic_export.ops.all_ops import SHIPPED
from elastic_export.ops.op import DOMAIN
from elastic_export.opset import IR_VERSION, OPSET
from elastic_export.products import TENSORRT_RTX, Product
from elastic_export.reference.state import state_ports_of
from elastic_runtime.errors import InternalError
from elastic_runtime.format.interface import Port, StatePort, logits_port, token_ports

DEQUANTISE = "DequantizeLinear"
_SMALL = 1 << 10  # bytes; constants below stay inside the file


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file and what its inputs and outputs are: all that an engine is built from.

    `ports` are tokens and states, `weights` the weight inputs in order, `logits` the first output. `ops` counts the
    nodes of each op of ours, by its name, `dequantised` the nodes that dequantise a weight.
    """

    path: Path
    architecture: Architecture
    precision: str
    ports: tuple[Port | StatePort, ...]
    weights: tuple[Port, ...]
    logits: Port
    ops: Mapping[str, int]
    dequantised: int

    def states(self) -> tuple[StatePort, ...]:
        """The ports that carry state."""
        return tuple(port for port in self.ports if isinstance(port, StatePort))


@dataclass(frozen=True)
class EmittedModel(ModelFile):
    """A file that was made from a graph: `weight_sources` (by the input's name, in the order of `weights`) and
    `state_slices` say what each input keeps of the parent.
    """

    weight_sources: Mapping[str, Weight]
    state_slices: tuple[StateSlice, ...]


def emit_model(
    model: ir.Model,
    arch: Architecture,
    path: Path,
    *,
    precision: str,
    every_token: bool = False,
    embed: ReadSlice | None = None,
    product: Product = TENSORRT_RTX,
) -> EmittedModel:
    """Order, name, complete and check a narrowed graph, write it once, and check the file.

    Args:
        model: the graph after `budget_passes`; changed in place.
        arch: the sub-model's architecture, against which the graph is checked.
        path: the file to write.
        precision: `bf16`, `fp16` or `fp32`, as assigned by the passes.
        every_token: whether the graph gives logits of all tokens.
        embed: reads a tensor of the parent; where given, the weights are no inputs but lie in `<file>.data`, read one
            by one as they are written.
        product: the TensorRT product that will build it, which decides the form of some function bodies.

    Raises:
        InternalError: the graph is not the plain sub-model.
    """
    facts = facts_of(model)
    ports, logits = _interface(arch, precision, every_token=every_token)
    states = [port for port in ports if isinstance(port, StatePort)]
    weights = tuple(_weight_port(model, name) for name in facts.weights)
    _order(model, [p.name for p in (*ports, *weights)], [logits.name, *(s.output for s in states)])
    ops = _add_functions(model, arch, precision, product)
    _rename(model.graph)
    model.ir_version = IR_VERSION
    check_emitted(model, arch, (*ports, *weights), facts)
    if embed is not None:
        embed_weights(model, facts.weights, embed)
    _write(model, path, embedded=embed is not None)
    onnx.checker.check_model(str(path), full_check=True)
    slices = tuple(facts.states[port.name] for port in states)
    dequantised = sum(node.op_type == DEQUANTISE for node in model.graph)
    return EmittedModel(path, arch, precision, ports, weights, logits, ops, dequantised, dict(facts.weights), slices)


def read_model_file(path: Path, arch: Architecture, *, precision: str, every_token: bool = False) -> ModelFile:
    """What `emit_model` said of a file that it wrote for `arch` in an earlier export.

    Raises:
        InternalError: the file's inputs are not those of such a model.
    """
    model = onnx.load(str(path), load_external_data=False)
    ports, logits = _interface(arch, precision, every_token=every_token)
    found, names = list(model.graph.input), [port.name for port in ports]
    if [value.name for value in found[: len(names)]] != names:
        raise InternalError(f"the inputs of {path}", expected=f"first {names}", found=f"{[v.name for v in found][:9]}")
    weights = tuple(_port_of(value) for value in found[len(names) :])
    ops = dict(Counter(node.op_type for node in model.graph.node if node.domain == DOMAIN))
    dequantised = sum(node.op_type == DEQUANTISE for node in model.graph.node)
    return ModelFile(path, arch, precision, ports, weights, logits, ops, dequantised)


def _interface(arch: Architecture, precision: str, *, every_token: bool) -> tuple[tuple[Port | StatePort, ...], Port]:
    """Tokens and states in order, and the logits."""
    states = state_ports_of(arch, DTYPES[precision].full)
    return (*token_ports(), *states), logits_port(arch.vocab_size, every_token=every_token)


def _port_of(value: onnx.ValueInfoProto) -> Port:
    """A weight input of a file: its shape has numbers only."""
    kind = value.type.tensor_type
    return Port(value.name, of_ir(ir.DataType(kind.elem_type)).full, tuple(dim.dim_value for dim in kind.shape.dim))


def _write(model: ir.Model, path: Path, *, embedded: bool) -> None:
    if embedded:
        ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=_SMALL)
    else:
        path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def _weight_port(model: ir.Model, name: str) -> Port:
    value = next(value for value in model.graph.inputs if value.name == name)
    assert value.dtype is not None
    return Port(name, of_ir(value.dtype).full, facts_of(model).weights[name].shape)


def _order(model: ir.Model, inputs: list[str], outputs: list[str]) -> None:
    """Inputs and outputs in the order of the interface."""
    for values, names in ((model.graph.inputs, inputs), (model.graph.outputs, outputs)):
        found = {str(value.name): value for value in values}
        if set(found) != set(names):
            differing = sorted(set(found) ^ set(names))
            raise InternalError(
                "the sub-model's interface", expected=f"{len(names)} tensors", found=f"differing {differing}"
            )
        values[:] = [found[name] for name in names]


def _add_functions(model: ir.Model, arch: Architecture, precision: str, product: Product) -> dict[str, int]:
    """Attach the body of each op of ours; returns the number of its nodes by op."""
    counts = Counter(node.op_type for node in model.graph if node.domain == DOMAIN)
    for name in counts:
        function = ir.from_proto(SHIPPED[name].function(OPSET, arch, precision, product))
        assert isinstance(function, ir.Function)
        model.functions[function.identifier()] = function
    if counts:
        model.graph.opset_imports[DOMAIN] = 1
    RemoveUnusedOpsetsPass()(model)
    return dict(counts)


def _rename(graph: ir.Graph) -> None:
    """Names that say op and number: the same for the same graph, whatever the passes called things in between."""
    count: Counter[str] = Counter()
    fixed = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for number, (old, value) in enumerate(list(graph.initializers.items())):
        del graph.initializers[old]
        value.name = f"constant_{number}"
        assert value.const_value is not None
        value.const_value.name = value.name
        graph.register_initializer(value)
    for node in graph:
        node.name = f"{node.op_type}_{count[node.op_type]}"
        count[node.op_type] += 1
        for index, output in enumerate(node.outputs):
            if id(output) not in fixed:
                output.name = node.name if index == 0 else f"{node.name}_{index}"
        attributes = sorted(node.attributes.values(), key=lambda attribute: attribute.name)
        node.attributes.clear()
        node.attributes.update({attribute.name: attribute for attribute in attributes})
