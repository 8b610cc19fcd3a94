"""How far a quantised sub-model is from the same one unquantised: after every layer, and at the logits.

Both go through the text side by side, so that what an earlier layer has lost is in what a later one gets: the figures
say what has become of the residual stream (Nemotron-H's, to which every layer adds), not what one layer does alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from elastic_export.evaluate.score import Block, Partition, Score

_AT_ONCE = 1024  # tokens whose difference is held in float64


@dataclass(frozen=True)
class Distance:
    """Of two models on one text. Relative errors are ‖quantised - plain‖ / ‖plain‖ over tokens and channels.

    Attributes:
        embedding: relative error of the residual stream before the first layer.
        layers: after each, by the parent's index.
        logits: of those that predict a scored token.
        divergence: Σ KL(plain ‖ quantised) over the scored tokens, nats.
        agreed: tokens before which both find the same one most likely.
    """

    embedding: float
    layers: dict[int, float]
    logits: float
    divergence: float
    agreed: int


class Pair:
    """Two subjects of an evaluation, and their distance as it is gathered.

    Args:
        quantised, plain: their numbers among the subjects.
    """

    def __init__(self, quantised: int, plain: int) -> None:
        self.quantised, self.plain = quantised, plain
        self._embedding, self._layers = 0.0, dict[int, float]()
        self._apart = self._whole = 0.0

    def embedded(self, quantised: Tensor, plain: Tensor) -> None:
        """The residual streams [1, N, d] before the first layer."""
        self._embedding = relative_error(quantised, plain)

    def after(self, place: int, quantised: Tensor, plain: Tensor) -> None:
        """The residual streams [1, N, d] after layer `place` of the parent."""
        self._layers[place] = relative_error(quantised, plain)

    def begin_head(self, targets: Tensor) -> None:
        """Before the first logits; `targets` [n] are the scored tokens."""
        self._partition, self._score = Partition(len(targets)), Score(targets)

    def add(self, tokens: slice, first: int, quantised: Tensor, plain: Tensor) -> None:
        """Logits [n, rows] of some tokens and of rows of the vocabulary from `first` on."""
        wide = plain.double()
        self._score.add(Block(tokens, first, wide, *self._partition.add(tokens, first, wide)), quantised)
        self._apart += float((quantised.double() - wide).square().sum())
        self._whole += float(wide.square().sum())

    def result(self) -> Distance:
        """After the last logits."""
        scored = self._score.result(self._partition)
        logits = _relative(self._apart, self._whole)
        return Distance(self._embedding, self._layers, logits, scored.divergence, scored.agreed)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """‖found - expected‖ / ‖expected‖ of [1, N, d], the sums in float64."""
    apart = whole = 0.0
    for mine, theirs in zip(torch.split(found, _AT_ONCE, dim=1), torch.split(expected, _AT_ONCE, dim=1), strict=True):
        wide = theirs.double()
        apart += float((mine.double() - wide).square().sum())
        whole += float(wide.square().sum())
    return _relative(apart, whole)


def _relative(apart: float, whole: float) -> float:
    """Of sums of squares. Of nothing but zeros no share is lost, or all that there is."""
    return math.sqrt(apart / whole) if whole else float(apart > 0)
