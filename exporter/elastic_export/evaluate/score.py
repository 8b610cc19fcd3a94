"""What logits say of a text, gathered block by block of the vocabulary: they are never whole.

Sums of exponentials are kept with the largest logit so far and rescaled when a larger one comes (Milakov and Gimelshein
2018, arXiv 1805.02867, algorithm 3), in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


class Partition:
    """The largest logit m and Σ exp(l - m) of every token over the rows of the vocabulary so far.

    Attributes:
        most: [n], m.
        total: [n], the sum.
        best: [n], the first row with the largest logit.
    """

    def __init__(self, tokens: int) -> None:
        self.most = torch.full((tokens,), -math.inf, dtype=torch.float64)
        self.total = torch.zeros(tokens, dtype=torch.float64)
        self.best = torch.zeros(tokens, dtype=torch.int64)

    def add(self, tokens: slice, first: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, rows] in float64 of the rows from `first` on.

        Returns:
            exp(l - m) [n, rows] and exp(m_before - m) [n] with the new m: for other sums that run along.
        """
        largest, place = logits.max(dim=1)
        before = self.most[tokens]
        self.best[tokens] = torch.where(largest > before, first + place, self.best[tokens])
        most = torch.maximum(largest, before)
        weights, scale = torch.exp(logits - most[:, None]), torch.exp(before - most)
        self.total[tokens] = self.total[tokens] * scale + weights.sum(dim=1)
        self.most[tokens] = most
        return weights, scale

    @property
    def logarithm(self) -> Tensor:
        """log Σ exp(l), [n]."""
        return self.most + self.total.log()


@dataclass(frozen=True)
class Block:
    """Some tokens, some rows of the vocabulary, and what the reference says there.

    Attributes:
        tokens: which n of the scored ones.
        first: the first row.
        logits: the reference's, float64 [n, rows].
        weights, scale: what its `Partition.add` returned.
    """

    tokens: slice
    first: int
    logits: Tensor
    weights: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Scored:
    """What a model's logits said of the scored tokens, as sums over them.

    Attributes:
        nats: Σ -log q(token).
        divergence: Σ KL(p ‖ q) in nats, p being what the reference says.
        agreed: tokens before which both find the same token most likely.
    """

    nats: float
    divergence: float
    agreed: int


class Score:
    """The sums of one model: -log q(t) = log Σ exp(l) - l_t, and with p of the reference (its logits r)
    KL(p ‖ q) = Σ p·(log p - log q) = Σ p·(r - l) - log Σ exp(r) + log Σ exp(l).
    """

    def __init__(self, targets: Tensor) -> None:
        self._targets, self._own = targets, Partition(len(targets))
        self._target = torch.zeros(len(targets), dtype=torch.float64)
        self._apart = torch.zeros(len(targets), dtype=torch.float64)  # Σ exp(r - m)·(r - l)

    def add(self, block: Block, logits: Tensor) -> None:
        """The model's own logits [n, rows] beside those of the reference."""
        tokens, wide = block.tokens, logits.double()
        self._own.add(tokens, block.first, wide)
        rows = self._targets[tokens] - block.first
        inside = (rows >= 0) & (rows < logits.shape[1])
        picked = wide.gather(1, rows.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
        self._target[tokens] = torch.where(inside, picked, self._target[tokens])
        self._apart[tokens] = self._apart[tokens] * block.scale + (block.weights * (block.logits - wide)).sum(dim=1)

    def result(self, reference: Partition) -> Scored:
        """After the last rows."""
        own = self._own.logarithm
        divergence = self._apart / reference.total - reference.logarithm + own
        agreed = int((self._own.best == reference.best).sum())
        return Scored(float((own - self._target).sum()), float(divergence.sum()), agreed)
