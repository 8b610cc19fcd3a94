"""The shipped file on its way through all calls of a plan, piece by piece: one ragged batch, junk in the padding,
poison in unwritten cache rows. Its own stream goes from piece to piece: the end is what the whole file computes.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import ModelProto

from elastic_export.verify.onnx_model import OnnxModel
from elastic_export.verify.pieces import Piece, output_of
from elastic_export.verify.plan import POISON, Ints, Plan, walk
from elastic_export.weights.source import WeightSource
from elastic_runtime.errors import BuildError

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]
_MOVED = ("Cast", "Identity")


@dataclass(frozen=True)
class Passed:
    """A layer in one call: the stream before it, its branch, their sum, and the states before and after."""

    position: Ints
    length: Ints
    stream: Array
    branch: Array
    total: Array
    before: dict[str, Array]
    after: dict[str, Array]


class ShippedFile:
    """A twin of the file: its streams [B, T, d'] by call, and the states of the piece that runs.

    Attributes:
        logits: by call [B, V], or [B, T, V] of every token.
    """

    def __init__(self, plan: Plan, vocab: int, *, rounded: bool) -> None:
        self._calls, self._plan, self._rounded = list(walk(plan, vocab)), plan, rounded
        self.streams: list[Array] = []
        self.logits: list[Array] = []

    def ids(self) -> Ints:
        """All token ids that are fed, junk too."""
        return np.concatenate([ids.ravel() for ids, _, _ in self._calls])

    def embed(self, piece: Piece, weights: Weights) -> None:
        """The first piece."""
        model = self._loaded(piece, weights)
        self.streams = [model.run(*call, {})[piece.result] for call in self._calls]

    def layer(self, piece: Piece, weights: Weights) -> list[Passed]:
        """One layer over all calls, from its own stream on."""
        model, passed = self._loaded(piece, weights), list[Passed]()
        given = model.empty_state(len(self._plan.ids), self._plan.context, cache_fill=POISON)
        state = {name: given[name] for name in piece.states}  # of another layer's cache it may want to know the size
        for number, (ids, position, length) in enumerate(self._calls):
            stream = self.streams[number]
            outputs = model.run(ids, position, length, given | state | {str(piece.stream): stream})
            after, total = {name: outputs[output_of(name)] for name in state}, outputs[piece.result]
            passed.append(Passed(position, length, stream, outputs[str(piece.branch)], total, state, after))
            self.streams[number], state = total, after
        return passed

    def head(self, piece: Piece, weights: Weights) -> None:
        """The last piece, or so many rows of its matrix as are given: logits are added behind those there are."""
        model = self._loaded(piece, weights)
        found = []
        for number, call in enumerate(self._calls):
            given = {} if piece.stream is None else {piece.stream: self.streams[number]}
            found.append(model.run(*call, given)["logits"])
        before = self.logits or [logits[..., :0] for logits in found]
        self.logits = [np.concatenate(pair, axis=-1) for pair in zip(before, found, strict=True)]

    def _loaded(self, piece: Piece, weights: Weights) -> OnnxModel:
        return OnnxModel(piece.model, weights.items(), rounded=self._rounded, inner=piece.inner, wide_weights=True)


def real_logits(logits: Array, row: int, length: int) -> Array:
    """[n, V]: of a row with `length` real tokens the last one's logits, or those of all real tokens."""
    found: Array = logits[row]
    return found[:length] if found.ndim == 2 else found[None][:length]


def piece_weights(piece: Piece, source: WeightSource) -> dict[str, Array]:
    """A piece's weights in float32."""
    return {name: _widened(_checked(piece, name, source.load(name))) for name in piece.weights}


def tables(piece: Piece) -> set[str]:
    """Weights of which rows are picked by the token ids, and nothing else is read."""
    nodes = piece.model.graph.node
    by_token = [n for n in nodes if n.op_type == "Gather" and not _axis(n) and n.input[1] == "input_ids"]
    elsewhere = {name for n in nodes if n not in by_token for name in n.input}
    return {n.input[0] for n in by_token}.intersection(piece.weights) - elsewhere


def embedding_weights(piece: Piece, source: WeightSource, ids: Ints) -> dict[str, Array]:
    """As `piece_weights`; of a table that tokens pick rows from, the rows of `ids` alone.

    The others are zero, in memory that nobody touches. No node of the piece can read them: see `tables`.
    """
    picked, weights = tables(piece), dict[str, Array]()
    for value in piece.model.graph.input:
        if value.name in piece.weights and value.name in picked:
            table = _untouched([d.dim_value for d in value.type.tensor_type.shape.dim])
            for row in np.unique(ids):
                found = _checked(piece, value.name, source.rows(value.name, int(row), 1), rows=1)
                table[row] = _widened(found)[0]
            weights[value.name] = table
        elif value.name in piece.weights:
            weights[value.name] = _widened(_checked(piece, value.name, source.load(value.name)))
    return weights


def _untouched(shape: Sequence[int]) -> Array:
    """Zeros that take memory by the small page where they are written, not by the large ones that numpy asks for."""
    memory = mmap.mmap(-1, 4 * math.prod(shape), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32).reshape(shape)


def head_matrix(piece: Piece) -> str | None:
    """The weight whose rows can be given in blocks, each for its own part of the logits; None where the piece is not
    made so: the logits must be one product with it, and nothing but conversions behind.
    """
    makers = {name: node for node in piece.model.graph.node for name in node.output}
    node = makers["logits"]
    while node.op_type in _MOVED:
        node = makers[node.input[0]]
    if node.op_type != "Gemm" or len(node.input) != 2 or not _attribute(node, "transB") or node.input[1] in makers:
        return None
    readers = [other for other in piece.model.graph.node if node.input[1] in other.input]
    return node.input[1] if len(readers) == 1 else None


def head_of(piece: Piece, matrix: str, rows: int) -> Piece:
    """The piece with that many rows of its matrix."""
    model = ModelProto()
    model.CopyFrom(piece.model)
    for value in (*model.graph.input, *model.graph.output):
        if value.name in (matrix, "logits"):
            dims = value.type.tensor_type.shape.dim
            dims[0 if value.name == matrix else len(dims) - 1].dim_value = rows
    return Piece(piece.name, model, piece.stream, piece.branch, piece.result)


def head_weights(piece: Piece, source: WeightSource, matrix: str, first: int, count: int) -> dict[str, Array]:
    """The weights of `head_of`, rows of the matrix from `first` on."""
    whole = {name: _widened(_checked(piece, name, source.load(name))) for name in piece.weights if name != matrix}
    return whole | {matrix: _widened(_checked(piece, matrix, source.rows(matrix, first, count), rows=count))}


def _checked(piece: Piece, name: str, array: npt.NDArray[Any], rows: int | None = None) -> npt.NDArray[Any]:
    """What the file asks for; of the shape onnxruntime says it, whole inputs are given to it."""
    [value] = [value for value in piece.model.graph.input if value.name == name]
    wanted = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
    if array.dtype != wanted or (rows is not None and list(array.shape) != [rows, *shape[1:]]):
        expected = f"{wanted} {[rows, *shape[1:]] if rows else shape}"
        found = f"{array.dtype} {list(array.shape)}"
        raise BuildError(
            f"weight {name} of {piece.name}", expected=expected, found=found, todo="export the bundle again"
        )
    return array


def _widened(array: npt.NDArray[Any]) -> Array:
    """A float32 array of its own, or a float32 one itself."""
    whole = np.require(array, requirements=["C", "A"])
    if whole.dtype == np.float32:
        return whole
    narrow = torch.bfloat16 if whole.dtype.name == "bfloat16" else torch.float16
    bits = torch.from_numpy(whole.view(np.int16) if whole.flags.writeable else whole.view(np.int16).copy())
    wide: Array = bits.view(narrow).float().numpy()
    return wide


def _axis(node: onnx.NodeProto) -> int:
    return int(_attribute(node, "axis") or 0)


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)
