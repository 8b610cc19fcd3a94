"""The twin of a model file: the same graph in float32 arithmetic, for machines whose onnxruntime has no narrow kernels.

onnxruntime's CPU has no BF16 kernels. Its twin keeps every op and every weight and computes in float32. A *rounded*
twin besides rounds each value that the original keeps narrow (Cast there and back), so that it differs from the
original in the accumulation order only: a precision assigned wrongly shows.

What a file does to a weight before anything is computed is part of the weight: one that is stored in float32 and that
the model takes in its narrow type is rounded to it in both twins.

Function bodies are inlined first, since a body says nothing of types and an op in it may compute narrow. The contracts
of our ops are float32 inside: so what a body *computes* narrow is rounded in both twins (what it only moves is not, nor
is what it moves to an output and computes with no more: that is the op's own result).

Needs the `onnx` package. A float32 model is its own twin.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

import onnx
import onnx.inliner
import onnx.shape_inference
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from elastic_runtime.errors import NO_ROOM, BuildError, ElasticError, InputError, room_advice

NARROW = {TensorProto.BFLOAT16, TensorProto.FLOAT16}
STATE_KINDS = ("conv_state", "ssm_state", "key_cache", "value_cache")
TOKEN_INPUTS = ("input_ids", "position", "length")
#: Ops that only move values: what comes out narrow went in narrow.
_MOVES = {
    "Concat",
    "Gather",
    "GatherND",
    "Identity",
    "Pad",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "TensorScatter",
    "Transpose",
    "Unsqueeze",
}


def is_weight(name: str) -> bool:
    """Whether an input of a model is a weight: neither a token input nor a state."""
    return name not in TOKEN_INPUTS and name.split(".", maxsplit=1)[0] not in STATE_KINDS


def narrow_type(model: ModelProto) -> int | None:
    """The narrow type a model computes in, or None for a float32 model."""
    found = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} & NARROW
    found |= {tensor.data_type for tensor in model.graph.initializer} & NARROW
    if len(found) > 1:
        raise InputError(
            "model.onnx", expected="one narrow type", found="float16 and bfloat16 mixed", todo="export the bundle again"
        )
    return next(iter(found), None)


def float32_twin(
    model: ModelProto, *, rounded: bool = False, wide_weights: bool = False, inner: Collection[str] = ()
) -> ModelProto:
    """A float32 twin of a model; the model is left alone.

    Weight inputs keep the dtype they are stored in and are cast inside, layer by layer: a twin needs no float32 copy of
    all weights in memory. Every other input and output of the narrow type becomes float32.

    Args:
        model: an emitted model; initializers may lie outside the file.
        rounded: whether values that were narrow are rounded to the narrow type.
        wide_weights: whether weight inputs are float32 too: twice the memory, and nothing is cast at every call.
        inner: inputs and outputs that are no weights but values cut out of a larger graph.
    """
    narrow = narrow_type(model)
    if narrow is None:
        twin = ModelProto()
        twin.CopyFrom(model)
        return twin
    twin = onnx.inliner.inline_local_functions(_with_defaults(model))
    outer = _results({name for node in model.graph.node for name in node.output}, twin)
    were_narrow, wide_in = _narrow_values(twin), _wide_weights(twin)
    del twin.graph.value_info[:]
    stored = _widen_interface((v for v in twin.graph.input if v.name not in inner), keep_weights=not wide_weights)
    stored += _widen_interface((v for v in twin.graph.output if v.name not in inner), keep_weights=True)
    _widen_interface((v for v in (*twin.graph.input, *twin.graph.output) if v.name in inner), keep_weights=False)
    stored += [tensor.name for tensor in twin.graph.initializer if tensor.data_type == narrow]
    nodes = [_cast(name, _wide(name), TensorProto.FLOAT) for name in stored]
    for node in twin.graph.node:
        of_a_body = outer.isdisjoint(node.output)
        of_a_weight = node.op_type == "Cast" and node.input[0] in wide_in
        nodes += _twin_of(node, set(stored), were_narrow, narrow if rounded or of_a_body or of_a_weight else None)
    del twin.graph.node[:]
    twin.graph.node.extend(nodes)
    return twin


def _results(outer: set[str], inlined: ModelProto) -> set[str]:
    """Values of the graph as it is emitted, and those inside a body that are moved there and read by nobody else."""
    found, readers = set(outer), dict[str, set[str]]()
    for node in inlined.graph.node:
        for place, name in enumerate(node.input):
            moved = place == 0 and node.op_type in _MOVES
            readers.setdefault(name, set()).update(node.output if moved else [""])
    for node in reversed(inlined.graph.node):
        found.update(name for name in node.output if name in readers and readers[name] <= found)
    return found


def _with_defaults(model: ModelProto) -> ModelProto:
    """The model with the default attributes of its functions at every call: onnx's inliner does not know of them."""
    complete = ModelProto()
    complete.CopyFrom(model)
    defaults = {(f.domain, f.name): f.attribute_proto for f in model.functions}
    for node in complete.graph.node:
        given = {attribute.name for attribute in node.attribute}
        missing = [a for a in defaults.get((node.domain, node.op_type), ()) if a.name not in given]
        node.attribute.extend(missing)
    return complete


def residual_sums(model: ModelProto) -> list[NodeProto]:
    """The sums of the residual stream, one a layer in order: inputs are the stream and the layer's branch."""
    bare = inferred(model)
    return [node for node in bare.node if node.op_type == "Add" and node.output[0] in _floats(bare)]


def _floats(graph: onnx.GraphProto) -> set[str]:
    kinds = {*NARROW, TensorProto.FLOAT}
    return {v.name for v in (*graph.value_info, *graph.output) if v.type.tensor_type.elem_type in kinds}


def inferred(model: ModelProto) -> onnx.GraphProto:
    """A copy of the graph with types by inference and not by what the file claims."""
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph


def _narrow_values(model: ModelProto) -> set[str]:
    """Names of the node outputs that are narrow."""
    graph = inferred(model)
    values = (*graph.value_info, *graph.output)
    return {value.name for value in values if value.type.tensor_type.elem_type in NARROW}


def _wide_weights(model: ModelProto) -> set[str]:
    """Names of the weights that are stored in float32."""
    inputs = {v.name for v in model.graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    held = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    return {name for name in inputs | held if is_weight(name)}


def _widen_interface(values: Iterable[ValueInfoProto], *, keep_weights: bool) -> list[str]:
    """Narrow inputs and outputs become float32, weights excepted where they are kept: their names are returned."""
    weights = []
    for value in values:
        if value.type.tensor_type.elem_type in NARROW:
            if keep_weights and is_weight(value.name) and value.name != "logits" and "_out." not in value.name:
                weights.append(value.name)
            else:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    return weights


def _wide(name: str) -> str:
    return f"{name}:wide"


def _cast(source: str, result: str, to: int) -> NodeProto:
    return onnx.helper.make_node("Cast", [source], [result], to=to, name=f"{result}:cast")


def _twin_of(node: NodeProto, stored: set[str], were_narrow: set[str], round_to: int | None) -> list[NodeProto]:
    """The node in float32, and behind it the rounding of what it gives narrow."""
    twin = NodeProto()
    twin.CopyFrom(node)
    twin.input[:] = [_wide(name) if name in stored else name for name in node.input]
    for attribute in twin.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i in NARROW:
            attribute.i = TensorProto.FLOAT
    if round_to is None or node.op_type in _MOVES:
        return [twin]
    if node.op_type == "RMSNormalization" and node.output[0] in were_narrow:
        return _rounded_norm(twin, round_to)
    roundings = []
    for index, name in enumerate(node.output):
        if name in were_narrow:
            twin.output[index] = f"{name}:exact"
            roundings.append(_cast(f"{name}:exact", f"{name}:narrow", round_to))
            roundings.append(_cast(f"{name}:narrow", name, TensorProto.FLOAT))
    return [twin, *roundings]


def _rounded_norm(norm: NodeProto, round_to: int) -> list[NodeProto]:
    """A narrow RMSNormalization as ONNX defines it: normalised in float32, rounded, then multiplied by the scale."""
    x, scale, y = norm.input[0], norm.input[1], norm.output[0]
    one = onnx.helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    plain = NodeProto()
    plain.CopyFrom(norm)
    plain.input[:] = [x, f"{y}:ones"]
    plain.output[:] = [f"{y}:plain"]
    return [
        onnx.helper.make_node("Shape", [scale], [f"{y}:shape"]),
        onnx.helper.make_node("ConstantOfShape", [f"{y}:shape"], [f"{y}:ones"], value=one),
        plain,
        _cast(f"{y}:plain", f"{y}:plain_narrow", round_to),
        _cast(f"{y}:plain_narrow", f"{y}:plain_rounded", TensorProto.FLOAT),
        onnx.helper.make_node("Mul", [f"{y}:plain_rounded", scale], [f"{y}:exact"]),
        _cast(f"{y}:exact", f"{y}:narrow", round_to),
        _cast(f"{y}:narrow", y, TensorProto.FLOAT),
    ]


def main(arguments: list[str]) -> int:
    """`python -m elastic_runtime.ort.twin [--wide] MODEL.onnx TWIN.onnx`: write the twin; --wide: weights float32
    too."""
    wide = "--wide" in arguments
    files = [argument for argument in arguments if argument != "--wide"]
    if len(files) != 2:
        print(main.__doc__, file=sys.stderr)
        return 2
    try:
        _save(float32_twin(_load(files[0]), wide_weights=wide), files[1])
    except ElasticError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _load(file: str) -> ModelProto:
    """A model whose weights, if it has any, lie beside it as it says. Raises InputError."""
    try:
        model = onnx.load(file, load_external_data=False)
    except MemoryError:
        raise
    except Exception as error:  # protobuf's own, of another module in each of its versions
        found = error.strerror or str(error) if isinstance(error, OSError) else "other bytes"
        todo = "name a model.onnx of a bundle"
        raise InputError(file, expected="an ONNX file", found=found, todo=todo) from error
    try:
        onnx.load_external_data_for_model(model, str(Path(file).parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        found, todo = " ".join(str(error).split()), "copy the folder of that file whole"
        raise InputError(file, expected="its weights beside it", found=found, todo=todo) from error
    return model


def _save(model: ModelProto, file: str) -> None:
    """Whole or not at all: what lay there before stays. Raises BuildError where there is no room, else InputError."""
    try:
        if (path := Path(file)).exists() and not path.is_file():  # a pipe or a device is no name to be exchanged
            onnx.save(model, path)
        else:
            _write_whole(model, Path(os.path.realpath(file)))  # a link stays one
    except OSError as error:
        found = error.strerror or str(error)
        if error.errno in NO_ROOM:
            raise BuildError(file, expected="room to write", found=found, todo=room_advice(error)) from error
        todo = "name another file"
        raise InputError(file, expected="a file that can be written", found=found, todo=todo) from error
    except MemoryError:
        raise
    except Exception as error:  # protobuf's own above 2 GiB, of another module in each of its versions
        todo = "take the model of a bundle whose weights are shared"
        raise InputError(file, expected="a twin that one file holds", found=str(error), todo=todo) from error


def _write_whole(model: ModelProto, path: Path) -> None:
    part = path.with_name(f".{os.getpid()}-{path.name}")  # onnx goes by the suffix
    try:
        onnx.save(model, part)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
