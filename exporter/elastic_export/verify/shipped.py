"""The shipped file on its way through all calls of a plan, piece by piece: one ragged batch, junk in the padding,
poison in unwritten cache rows. Its own stream goes from piece to piece: the end is what the whole file computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from elastic_export.verify.plan import POISON, Ints, Plan, walk
from elastic_runtime.ort.onnx_model import OnnxModel
from elastic_runtime.ort.pieces import Piece, output_of

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]


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

    Args:
        threads: of one op; 0 leaves the choice to onnxruntime.

    Attributes:
        logits: by call [B, V], or [B, T, V] of every token.
    """

    def __init__(self, plan: Plan, vocab: int, *, rounded: bool, threads: int = 0) -> None:
        self._calls, self._plan, self._rounded, self._threads = list(walk(plan, vocab)), plan, rounded, threads
        self.streams: list[Array] = []
        self.logits: list[Array] = []

    def ids(self) -> Ints:
        """All token ids that are fed, junk too."""
        return np.concatenate([ids.ravel() for ids, _, _ in self._calls])

    def embed(self, piece: Piece, weights: Weights) -> None:
        """The first piece."""
        outputs = self._together(piece, self._loaded(piece, weights))
        self.streams = [found[piece.result] for found in outputs]

    def layer(self, piece: Piece, weights: Weights) -> Iterator[Passed]:
        """One layer over all calls, from its own stream on, call by call; none may be left out."""
        model = self._loaded(piece, weights)
        if not model.state_shapes:
            for number, (outputs, call) in enumerate(zip(self._together(piece, model), self._calls, strict=True)):
                stream, total = self.streams[number], outputs[piece.result]
                self.streams[number] = total
                yield Passed(*call[1:], stream, outputs[str(piece.branch)], total, {}, {})
            return
        given = model.empty_state(len(self._plan.ids), self._plan.context, cache_fill=POISON)
        state = {name: given[name] for name in piece.states}  # of another layer's cache it may want to know the size
        for number, (ids, position, length) in enumerate(self._calls):
            stream = self.streams[number]
            outputs = model.run(ids, position, length, given | state | {str(piece.stream): stream})
            after, total = {name: outputs[output_of(name)] for name in state}, outputs[piece.result]
            passed = Passed(position, length, stream, outputs[str(piece.branch)], total, state, after)
            self.streams[number], state = total, after
            yield passed

    def head(self, piece: Piece, weights: Weights) -> None:
        """The last piece, or so many rows of its matrix as are given: logits are added behind those there are."""
        found = [outputs["logits"] for outputs in self._together(piece, self._loaded(piece, weights))]
        before = self.logits or [logits[..., :0] for logits in found]
        self.logits = [np.concatenate(pair, axis=-1) for pair in zip(before, found, strict=True)]

    def _together(self, piece: Piece, model: OnnxModel) -> list[dict[str, Array]]:
        """The outputs of every call of a piece that carries nothing from call to call: calls of as many tokens run as
        one batch, since each run reads all weights.
        """
        found, batch = dict[int, dict[str, Array]](), len(self._plan.ids)
        for tokens in {step.tokens for step in self._plan.steps}:
            numbers = [number for number, step in enumerate(self._plan.steps) if step.tokens == tokens]
            ids, position, length = (np.concatenate([self._calls[n][part] for n in numbers]) for part in range(3))
            streams = {} if piece.stream is None else {piece.stream: np.concatenate([self.streams[n] for n in numbers])}
            outputs = model.run(ids, position, length, streams)
            for place, number in enumerate(numbers):
                rows = slice(place * batch, (place + 1) * batch)
                found[number] = {name: value[rows] for name, value in outputs.items()}
        return [found[number] for number in range(len(self._calls))]

    def _loaded(self, piece: Piece, weights: Weights) -> OnnxModel:
        return OnnxModel(
            piece.model,
            weights.items(),
            rounded=self._rounded,
            inner=piece.inner,
            wide_weights=True,
            threads=self._threads,
        )


def real_logits(logits: Array, row: int, length: int) -> Array:
    """[n, V]: of a row with `length` real tokens the last one's logits, or those of all real tokens."""
    found: Array = logits[row]
    return found[:length] if found.ndim == 2 else found[None][:length]
