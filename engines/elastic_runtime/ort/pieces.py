"""An emitted file, cut at the sums of its residual stream: the embedding, each layer, the head.

A piece is an ONNX model of its own. Its nodes are the file's, unchanged and in the file's order; its inputs are the
stream, and what its nodes read of tokens, states and weights; its outputs are the next stream and the states that it
writes. So one layer's weights are enough to run one layer of the very file that ships.

Nodes that compute shapes, positions and masks from tokens alone may serve several layers: each of these pieces has a
copy. Every other node that an output of the file needs is in exactly one piece (`check_pieces`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx
import onnx.shape_inference
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from elastic_runtime.errors import BuildError, InternalError
from elastic_runtime.ort.twin import TOKEN_INPUTS, inferred, is_weight, residual_sums

#: Ops that read no values of their operand.
_SHAPE_OPS = ("Shape", "Size")


@dataclass(frozen=True)
class Piece:
    """A part of a file.

    `stream` is the residual stream that it reads (None: the embedding), `branch` what it adds to it, `result` the
    stream that it gives (the head: the logits, and no branch).
    """

    name: str
    model: ModelProto
    stream: str | None
    branch: str | None
    result: str

    @property
    def inner(self) -> tuple[str, ...]:
        """Its inputs and outputs that are values inside the file."""
        return tuple(name for name in (self.stream, self.branch, self.result) if name is not None)

    @property
    def weights(self) -> list[str]:
        """Its weight inputs."""
        return [v.name for v in self.model.graph.input if is_weight(v.name) and v.name != self.stream]

    @property
    def states(self) -> list[str]:
        """The states that it carries on."""
        read = {name for n in self.model.graph.node if n.op_type not in _SHAPE_OPS for name in n.input}
        return [v.name for v in self.model.graph.input if _is_state(v.name) and v.name in read]


def cut(model: ModelProto, layers: Sequence[int]) -> list[Piece]:
    """The pieces of a file in their order; `layers` are the parent's numbers of its layers, for names.

    Tensors outside the file (`model` was loaded without them) become weight inputs.

    Raises:
        BuildError: the file has another number of layers, or a state that belongs to none of them.
        InternalError: the pieces are not the file.
    """
    try:
        sums, file = residual_sums(model), _File(model)
    except onnx.shape_inference.InferenceError as error:
        raise _broken("model.onnx", "types and shapes that agree", str(error).strip()) from error
    if len(sums) != len(layers):
        found = f"{len(sums)}"
        raise InternalError(
            "model.onnx", expected=f"{len(layers)} sums of the residual stream, one a layer", found=found
        )
    _check_states(model)
    if not sums:
        return [file.piece("embedding and head", None, None, "logits", ())]
    streams = [*(node.input[0] for node in sums), sums[-1].output[0]]
    _check_streams(file, sums)
    needed = [file.cone([node.output[0]], {node.input[0]}) for node in sums]
    written = _owners(file, streams, needed)
    pieces = [file.piece("embedding", None, None, streams[0], ())]
    for number, (layer, node) in enumerate(zip(layers, sums, strict=True)):
        pieces.append(file.piece(f"layer {layer}", node.input[0], node.input[1], node.output[0], written[number]))
    pieces.append(file.piece("head", streams[-1], None, "logits", ()))
    for piece in pieces:
        _check_own_states(piece)
    check_pieces(model, pieces)
    return pieces


def _check_states(model: ModelProto) -> None:
    missing = {output_of(v.name) for v in model.graph.input if _is_state(v.name)} - {v.name for v in model.graph.output}
    if missing:
        raise _broken("model.onnx", "an output for every state", f"no {min(missing)}")


def _check_streams(file: _File, sums: Sequence[NodeProto]) -> None:
    """Each layer adds to what the one before it gave, and computes what it adds from that alone."""
    streams = {node.input[0] for node in sums} | {sums[-1].output[0]}
    for before, node in pairwise(sums):
        if node.input[0] != before.output[0]:
            raise _broken(f"model.onnx, node {node.name}", f"{before.output[0]} as the stream", node.input[0])
    for result, stream in [*((n.output[0], n.input[0]) for n in sums), ("logits", sums[-1].output[0])]:
        read = file.read_by(file.cone([result], streams - {result})) & streams
        if read != {stream}:
            raise _broken(
                f"model.onnx, {result}", f"{stream} alone as the stream", " and ".join(sorted(read)) or "none"
            )


def _check_own_states(piece: Piece) -> None:
    read = sorted(map(output_of, piece.states))
    written = sorted(v.name for v in piece.model.graph.output if v.name not in piece.inner)
    if read != written:
        raise _broken(f"model.onnx, {piece.name}", f"to write the states that it reads, {read}", f"{written}")


def _owners(file: _File, streams: Sequence[str], needed: Sequence[set[int]]) -> list[list[str]]:
    """By layer, the state outputs that it writes: those computed from its stream; one that is computed from no stream
    belongs to the layer that reads the same state.
    """
    owned: list[list[str]] = [[] for _ in needed]
    for output in file.model.graph.output:
        if output.name == "logits":
            continue
        read = file.read_by(file.cone([output.name], set(streams)))
        owners = [number for number, stream in enumerate(streams[:-1]) if stream in read]
        if not owners:
            states = set(filter(_is_state, read))
            owners = [number for number, cone in enumerate(needed) if states & file.read_by(cone)]
        if len(owners) != 1:
            raise _broken(f"model.onnx: {output.name}", "one layer that computes it", f"{len(owners)}")
        owned[owners[0]].append(output.name)
    return owned


class _File:
    """A file's graph, for questions about who reads what."""

    def __init__(self, model: ModelProto) -> None:
        self.model, self.nodes = model, list(model.graph.node)
        self.inputs = {value.name: value for value in model.graph.input}
        self._maker = {name: at for at, node in enumerate(self.nodes) for name in node.output if name}
        self._types = {value.name: value for value in _typed(inferred(model))}
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}

    def cone(self, outputs: Iterable[str], stop: Collection[str]) -> set[int]:
        """Places of the nodes that compute `outputs`, back to the values in `stop`."""
        found, ahead = set[int](), list(outputs)
        while ahead:
            name = ahead.pop()
            at = self._maker.get(name)
            if at is not None and at not in found and name not in stop:
                found.add(at)
                ahead += self.nodes[at].input
        return found

    def read_by(self, places: Iterable[int]) -> set[str]:
        """What these nodes read that none of them makes."""
        places = list(places)
        made = {name for at in places for name in self.nodes[at].output}
        return {name for at in places for name in self.nodes[at].input if name} - made

    def piece(self, name: str, stream: str | None, branch: str | None, result: str, states: Sequence[str]) -> Piece:
        """The piece that computes `result` and `states` from `stream`."""
        places = sorted(self.cone([result, *states], {stream} if stream else ()))
        read = self.read_by(places)
        graph = GraphProto(name=name)
        graph.node.extend(self.nodes[at] for at in places)
        graph.initializer.extend(t for key, t in self._initializers.items() if key in read and not _is_outside(t))
        graph.input.extend(value for key, value in self.inputs.items() if key in read)
        graph.input.extend(_as_input(t) for key, t in self._initializers.items() if key in read and _is_outside(t))
        inner = [self._type(value) for value in (stream, branch, result) if value is not None and value != "logits"]
        graph.input.extend(inner[:1] if stream else ())
        outputs = {value.name: value for value in (*inner[bool(stream) :], *self.model.graph.output)}
        graph.output.extend(outputs[key] for key in dict.fromkeys((branch, result, *states)) if key is not None)
        model = ModelProto(ir_version=self.model.ir_version, opset_import=self.model.opset_import, graph=graph)
        called = {(node.domain, node.op_type) for node in graph.node}
        model.functions.extend(f for f in self.model.functions if (f.domain, f.name) in called)
        return Piece(name, model, stream, branch, result)

    def _type(self, name: str) -> ValueInfoProto:
        return self._types[name]


def check_pieces(model: ModelProto, pieces: Sequence[Piece]) -> None:
    """Raise InternalError unless the pieces are the file: every node that its outputs need in exactly one of them
    (`shared_nodes` in one or more), unchanged, reading the same values, made by the same makers.
    """
    file = _File(model)
    live = file.cone([output.name for output in model.graph.output], ())
    _check_nodes(file, live, pieces)
    _check_chain(pieces)
    for piece in pieces:
        _check_values(file, piece)
    _check_outputs(model, pieces)


def shared_nodes(model: ModelProto) -> list[NodeProto]:
    """The nodes that may stand in several pieces: those that depend on tokens and shapes alone."""
    plain = {*TOKEN_INPUTS, *(t.name for t in model.graph.initializer if not _is_outside(t)), ""}
    found = []
    for node in model.graph.node:
        if (node.op_type in _SHAPE_OPS and not node.domain) or plain.issuperset(node.input):
            plain.update(node.output)
            found.append(node)
    return found


def _check_nodes(file: _File, live: set[int], pieces: Sequence[Piece]) -> None:
    """Each needed node once, or more often where it is shared; no others, and in the file's order."""
    place = {_text(node): at for at, node in enumerate(file.nodes)}
    shared = {place[_text(node)] for node in shared_nodes(file.model)}
    holders: dict[int, list[str]] = {at: [] for at in live}
    for piece in pieces:
        places = [place.get(_text(node), -1) for node in piece.model.graph.node]
        strange = [n.name for n, at in zip(piece.model.graph.node, places, strict=True) if at not in live]
        if strange:
            raise _wrong(piece.name, "nodes of the file", f"{strange[0]}, which is none")
        if places != sorted(set(places)):
            raise _wrong(piece.name, "nodes once each, in the order of the file", "another order")
        for at in places:
            holders[at].append(piece.name)
    for at, names in sorted(holders.items()):
        if len(names) != 1 and (at not in shared or not names):
            raise _wrong(f"node {file.nodes[at].name}", "one piece that has it", " and ".join(names) or "none")


def _check_chain(pieces: Sequence[Piece]) -> None:
    """Each piece reads the stream that the one before it gives, and every layer's result is its stream and branch."""
    if not pieces or pieces[0].stream is not None or pieces[-1].result != "logits":
        raise _wrong("order", "pieces from the embedding to the logits", f"{[piece.name for piece in pieces]}")
    for before, piece in pairwise(pieces):
        if piece.stream != before.result:
            raise _wrong(piece.name, f"the stream {before.result}, which {before.name} gives", f"{piece.stream}")
    for piece in pieces[1:-1]:
        last = next((list(n.input) for n in piece.model.graph.node if piece.result in n.output), None)
        if last != [piece.stream, piece.branch]:
            raise _wrong(piece.name, f"the sum of {piece.stream} and {piece.branch}", f"{last}")


def _check_values(file: _File, piece: Piece) -> None:
    """What its nodes read is made in it, or comes from outside as it does in the file."""
    graph = piece.model.graph
    tensors = {t.name: t for t in file.model.graph.initializer}
    declared = {**file.inputs, **{name: _as_input(t) for name, t in tensors.items() if _is_outside(t)}}
    for value in graph.input:
        if value.name != piece.stream and declared.get(value.name) != value:
            raise _wrong(piece.name, f"the input {value.name} of the file", "another")
    for tensor in graph.initializer:
        if tensors.get(tensor.name) != tensor:
            raise _wrong(piece.name, f"the tensor {tensor.name} of the file", "another")
    given = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    read = {name for node in graph.node for name in node.input}
    if unread := sorted(given - read - {""}):
        raise _wrong(piece.name, "inputs that its nodes read", unread[0])
    made = {name for node in graph.node for name in node.output}
    if missing := sorted(read - given - made):
        raise _wrong(piece.name, f"the maker of {missing[0]}, or that input", "neither")
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        if not (read | outputs).intersection(node.output):
            raise _wrong(piece.name, "nodes that somebody reads", node.name)
    if piece.stream in made:
        raise _wrong(piece.name, f"{piece.stream} from the piece before", "a maker of its own")
    called = {(node.domain, node.op_type) for node in graph.node}
    functions = [f for f in file.model.functions if (f.domain, f.name) in called]
    versions = (piece.model.ir_version, list(piece.model.opset_import))
    if list(piece.model.functions) != functions or versions != (file.model.ir_version, list(file.model.opset_import)):
        raise _wrong(piece.name, "functions and opsets of the file", "others")


def _check_outputs(model: ModelProto, pieces: Sequence[Piece]) -> None:
    """Every output of the file is given by one piece, with its type; every piece gives its stream and its branch."""
    inner = {name for piece in pieces for name in piece.inner} - {"logits"}
    given = [(value, piece) for piece in pieces for value in piece.model.graph.output if value.name not in inner]
    names = sorted(value.name for value, _ in given)
    if names != sorted(value.name for value in model.graph.output):
        raise _wrong("outputs", f"the {len(model.graph.output)} of the file, once each", f"{names}")
    for value in model.graph.output:
        if all(value != other for other, _ in given):
            raise _wrong(f"output {value.name}", "the type that the file says", "another")
    for piece in pieces:
        wanted = {piece.result, *([piece.branch] if piece.branch else [])}
        if not wanted <= {value.name for value in piece.model.graph.output}:
            raise _wrong(piece.name, f"the outputs {sorted(wanted)}", "not all of them")


def _broken(subject: str, expected: str, found: str) -> BuildError:
    return BuildError(subject, expected=expected, found=found, todo="export the bundle again")


def _wrong(subject: str, expected: str, found: str) -> InternalError:
    return InternalError(f"pieces of model.onnx: {subject}", expected=expected, found=found)


def _is_state(name: str) -> bool:
    return not is_weight(name) and name not in TOKEN_INPUTS and "_out." not in name


def output_of(state: str) -> str:
    """The output that carries a state on."""
    kind, ordinal = state.split(".")
    return f"{kind}_out.{ordinal}"


def _text(node: NodeProto) -> bytes:
    text: bytes = node.SerializeToString(deterministic=True)
    return text


def _is_outside(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


def _as_input(tensor: TensorProto) -> ValueInfoProto:
    """An input of the type of a tensor."""
    value = ValueInfoProto(name=tensor.name)
    value.type.tensor_type.elem_type = tensor.data_type
    for size in tensor.dims:
        value.type.tensor_type.shape.dim.add(dim_value=size)
    return value


def _typed(graph: GraphProto) -> Iterator[ValueInfoProto]:
    yield from (*graph.value_info, *graph.input, *graph.output)
