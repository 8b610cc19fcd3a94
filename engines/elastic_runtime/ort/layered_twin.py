"""The float32 twin of a file, a layer at a time: all calls of a run pass one before the next one's weights are read.

So what a whole twin holds for the length of a run is held for the length of a layer: its weights in float32 and its
states. What stays is the residual stream of every call and the logits. The layers are the pieces of the file itself
(pieces.py), the head comes in blocks of rows, and of the table of tokens the rows are read that the run asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt
from onnx import FunctionProto, ModelProto, ValueInfoProto

from elastic_runtime.backend import Floats, Ints
from elastic_runtime.driver.free_memory import free_ram
from elastic_runtime.errors import BuildError, UnavailableError
from elastic_runtime.fit.vram import gib
from elastic_runtime.ort.onnx_model import OnnxModel
from elastic_runtime.ort.piece_weights import (
    check_source,
    embedding_weights,
    head_matrix,
    head_of,
    head_weights,
    piece_weights,
    tables,
)
from elastic_runtime.ort.pieces import Piece, cut, output_of
from elastic_runtime.ort.twin import TOKEN_INPUTS
from elastic_runtime.ort.weight_source import WeightSource

Array = npt.NDArray[np.float32]
#: `input_ids` [B, T], `position` [B] and `length` [B] of one call (`Backend.call`).
Call = tuple[Ints, Ints, Ints]
_BLOCK = 1 << 24  # elements of the head's matrix at a time: 64 MiB in float32
_MARGIN = 256 << 20  # bytes: onnxruntime itself, its buffers of one call


class LayeredTwin:
    """A file's twin on the CPU; it keeps no state between runs.

    Args:
        model: the file's content, loaded without the tensors that lie outside of it.
        layers: the parent's numbers of its layers, for names.
        weights: of all weight inputs.
        name: of the budget, for errors.

    Raises:
        BuildError, InternalError: the file cannot be cut (`cut`), or holds what no piece would run.
    """

    def __init__(self, model: ModelProto, layers: Sequence[int], weights: WeightSource, name: str) -> None:
        self._model, self._source, self._name = model, weights, name
        pieces = cut(model, layers)
        _check_all_held(model, pieces)
        *self._pieces, self._head = pieces
        self._matrix = head_matrix(self._head)
        shapes = {value.name: _shape(value, {}) for value in (*self._head.model.graph.input, *model.graph.output)}
        self.vocab_size = int(shapes["logits"][-1])
        if self._matrix is not None and self._matrix.rows != self.vocab_size:
            found = f"{self._matrix.rows} rows of {next(iter(self._matrix.axes))}"
            todo = "export the bundle again"
            raise BuildError(
                "model.onnx", expected=f"{self.vocab_size} logits as its output says", found=found, todo=todo
            )

    def run(self, calls: Sequence[Call], context: int, take: Callable[[str, Array], None]) -> list[Floats]:
        """All calls of new sequences, one after the other.

        Args:
            calls: all of the same B.
            context: S of the caches.
            take: hears every state by its input name, as it is after the last call. It must not keep it.

        Returns:
            By call, logits [B, V] of each row's last real token; unspecified where the row has none.

        Raises:
            UnavailableError: not enough memory; it says how much it would take.
            InputError, BuildError: weights that are not the file's, or a piece that onnxruntime does not run.
        """
        check_source(self._model, self._source)
        self._check_room(calls, context)
        streams = list[Array]()
        for piece in self._pieces:
            if piece.stream is None:
                streams = self._embedded(piece, calls)
            else:
                streams = self._layer(piece, calls, context, streams, take)
        return self._logits(calls, streams)

    def _embedded(self, piece: Piece, calls: Sequence[Call]) -> list[Array]:
        ids = np.concatenate([ids.ravel() for ids, _, _ in calls])
        model = _loaded(piece, embedding_weights(piece, self._source, ids))
        return [model.run(*call, {})[piece.result] for call in calls]

    def _layer(
        self,
        piece: Piece,
        calls: Sequence[Call],
        context: int,
        streams: Sequence[Array],
        take: Callable[[str, Array], None],
    ) -> list[Array]:
        """The streams behind a layer."""
        model, results = _loaded(piece, piece_weights(piece, self._source)), list[Array]()
        given = model.empty_state(len(calls[0][0]), context)
        state = {name: given[name] for name in piece.states}  # of another layer's cache it may want to know the size
        for call, stream in zip(calls, streams, strict=True):
            outputs = model.run(*call, given | state | {str(piece.stream): stream})
            state = {name: outputs[output_of(name)] for name in state}
            results.append(outputs[piece.result])
        for name, values in state.items():
            take(name, values)
        return results

    def _logits(self, calls: Sequence[Call], streams: Sequence[Array]) -> list[Floats]:
        if self._matrix is None:
            return self._block(_loaded(self._head, piece_weights(self._head, self._source)), calls, streams)
        blocks, model = list[list[Floats]](), None
        for first, rows in self._row_blocks():
            weights = head_weights(self._head, self._source, self._matrix, first, rows)
            if model is None or len(blocks[-1][0][0]) != rows:
                model = _loaded(head_of(self._head, self._matrix, rows), weights)
            else:
                model.bind(weights.items())
            blocks.append(self._block(model, calls, streams))
        return [np.concatenate(parts, axis=-1) for parts in zip(*blocks, strict=True)]

    def _block(self, model: OnnxModel, calls: Sequence[Call], streams: Sequence[Array]) -> list[Floats]:
        """By call, [B, rows]: what the head gives for each row's last real token."""
        found = list[Floats]()
        for number, (ids, position, length) in enumerate(calls):
            given = {self._head.stream: streams[number]} if self._head.stream else {}
            logits = model.run(ids, position, length, given)["logits"]
            last = np.maximum(length - 1, 0)
            found.append(logits if logits.ndim == 2 else logits[np.arange(len(ids)), last])
        return found

    def _row_blocks(self) -> list[tuple[int, int]]:
        """(first row, rows) of the blocks in which the head's matrix is read."""
        assert self._matrix is not None
        total, rows = self._matrix.rows, max(1, _BLOCK // self._matrix.columns)
        return [(first, min(rows, total - first)) for first in range(0, total, rows)]

    def needed(self, calls: Sequence[Call], context: int) -> int:
        """Bytes of main memory that a run takes: the largest piece's weights and states, a weight as it is stored, the
        streams and logits of all calls, the file and its pieces.
        """
        sizes = {"B": len(calls[0][0]), "T": max(ids.shape[1] for ids, _, _ in calls), "S": context}
        largest = max(self._piece_bytes(piece, sizes) for piece in (*self._pieces, self._head))
        tokens = sum(ids.size for ids, _, _ in calls)
        width = sum(_shape(v, {})[-1] for v in self._head.model.graph.input if v.name == self._head.stream)
        logits = 2 * len(calls) * sizes["B"] * self.vocab_size
        return int(largest + 4 * (2 * tokens * width + logits) + 2 * self._model.ByteSize() + _MARGIN)

    def _piece_bytes(self, piece: Piece, sizes: dict[str, int]) -> int:
        """A piece's weights in float32, the largest of them as it is stored, and its states before and after a call."""
        by_rows: Collection[str] = tables(piece)
        if piece is self._head:
            by_rows = () if self._matrix is None else self._matrix.axes
        weights = [0]
        for value in piece.model.graph.input:
            if value.name in piece.weights:
                elements = math.prod(_shape(value, {}))
                weights.append(min(elements, _BLOCK) if value.name in by_rows else elements)
        states = [v for v in piece.model.graph.input if v.name in piece.states]
        return 4 * (sum(weights) + max(weights) + 2 * sum(math.prod(_shape(v, sizes)) for v in states))

    def _check_room(self, calls: Sequence[Call], context: int) -> None:
        need, free = self.needed(calls, context), free_ram()
        if need > free:
            raise UnavailableError(
                f"budget {self._name!r} on the CPU",
                expected=f"{gib(need)} GiB of free memory (float32 arithmetic, a layer's weights at a time)",
                found=f"{gib(free)} GiB",
                todo="end other programs, or verify it on a machine with more memory",
            )


def _check_all_held(model: ModelProto, pieces: Sequence[Piece]) -> None:
    """Whether the pieces hold all that onnxruntime and the recipe of the weights are asked for when a file runs whole.

    What nobody needs is in no piece, and a fault in it would not be seen. Which tokens are idle or padding, a file
    without caches and states need not ask.
    """
    parts = [piece.model for piece in pieces]
    held = {name for part in parts for node in part.graph.node for name in node.output}
    held |= {value.name for part in parts for value in (*part.graph.input, *part.graph.initializer)}
    held |= {*TOKEN_INPUTS, *(_function(f) for part in parts for f in part.functions)}
    left = [node.name or node.op_type for node in model.graph.node if held.isdisjoint(node.output)]
    left += [value.name for value in (*model.graph.input, *model.graph.initializer) if value.name not in held]
    left += [_function(f) for f in model.functions if _function(f) not in held]
    if left:
        todo = "export the bundle again"
        raise BuildError("model.onnx", expected="nothing but what the layers need", found=left[0], todo=todo)


def _function(function: FunctionProto) -> str:
    return f"function {function.domain}::{function.name}"


def _loaded(piece: Piece, weights: dict[str, Array]) -> OnnxModel:
    return OnnxModel(piece.model, weights.items(), inner=piece.inner, wide_weights=True)


def _shape(value: ValueInfoProto, sizes: dict[str, int]) -> tuple[int, ...]:
    """Of a value; its symbols have these sizes, or 0."""
    return tuple(d.dim_value or sizes.get(d.dim_param, 0) for d in value.type.tensor_type.shape.dim)
