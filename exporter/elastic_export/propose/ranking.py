"""Which layers matter least: the parent without each of them, all in few walks over the weights.

The measure is the normalised mean squared error of Nemotron Elastic (arXiv 2511.16664, "Importance estimation"): with F
the parent's logits and F₋ⱼ those without layer j, Σ (F - F₋ⱼ)² / Σ F² over the tokens that are scored. Each layer is
judged alone, where the paper judges the next without those that are gone: that would be a walk for every layer. The
search exchanges layers afterwards (search.py).

Before layer j the stream without it is the parent's own, so it begins there: half of the work. All streams of a walk
take a layer's weights from one conversion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from elastic_export.evaluate.passage import Passage
from elastic_export.evaluate.runner import TOGETHER, Runner, asked_tokens
from elastic_export.evaluate.score import Block, Partition, Score
from elastic_export.evaluate.sub_model import SubModel
from elastic_export.progress import Gauge, Progress
from elastic_export.verify.way import head_blocks
from elastic_export.verify.workers import workers_for

#: That share the layers of a walk, see verify/workers.py.
RUNNERS = 2


@dataclass(frozen=True)
class LayerLoss:
    """What it costs to leave out one layer.

    Attributes:
        mse: see the module; without unit.
        divergence: KL from the parent, nats a token.
    """

    mse: float
    divergence: float


def layer_losses(
    parent: SubModel, layers: Sequence[int], passage: Passage, progress: Progress, total: int, what: str
) -> dict[int, LayerLoss]:
    """The losses without each of some layers, in one walk over the weights.

    Args:
        parent: all of it.
        layers: indices of the layers that are left out, one in each stream.
        passage: the text.
        progress: hears how far it is.
        total: bytes of the parent's weights.
        what: which of several walks.

    Raises:
        InputError: a value is not finite; the tensor or the layer is named.
    """
    shares = [share for start in range(RUNNERS) if (share := layers[start::RUNNERS])]
    with (
        workers_for(parent.architecture.hidden_size) as workers,
        torch.inference_mode(),
        progress.step("layers", what=what),
    ):
        forks: list[Forks] = []
        progress.watch(Gauge(total * len(shares), lambda: sum(fork.passed for fork in forks)))
        for share in shares:
            forks.append(Forks(parent, share, passage))
        for place in parent.layers:
            workers.run(partial(fork.layer, place) for fork in forks)
        workers.run(partial(fork.finish, passage) for fork in forks)
        return {layer: loss for fork in forks for layer, loss in fork.losses.items()}


class Forks(Runner):
    """The parent's stream, and behind it one more for every layer that is left out, begun at that layer.

    Attributes:
        losses: by layer, after `finish`.
    """

    def __init__(self, parent: SubModel, layers: Sequence[int], passage: Passage) -> None:
        super().__init__(parent, "fp32", passage)
        self._without, self._forked, self._own = set(layers), list[int](), list(self._lengths)
        self.losses: dict[int, LayerLoss] = {}

    def layer(self, place: int) -> None:
        """See `Runner.layer`; for all streams."""
        before = self._stream[:, : sum(self._own)].clone()
        super().layer(place)
        if place in self._without:
            self._stream = torch.cat([self._stream, before], dim=1)
            self._lengths = self._lengths + self._own
            self._forked.append(place)

    def finish(self, passage: Passage) -> None:
        """After the last layer: the head, and what its logits say."""
        asked, ids = asked_tokens(passage)
        own, count = sum(self._own), len(asked)
        self.begin_head(torch.cat([torch.from_numpy(asked) + own * n for n in range(1 + len(self._forked))]).numpy())
        targets, partition = torch.from_numpy(ids), Partition(count)
        scores = [Score(targets) for _ in self._forked]
        whole, apart = 0.0, [0.0] * len(self._forked)
        for first, rows in head_blocks(self.model.architecture):
            weight = self.head_rows(first, rows)
            for begin in range(0, count, TOGETHER):
                tokens = slice(begin, min(begin + TOGETHER, count))
                theirs = self._fork_logits(weight, tokens, 0)
                block = Block(tokens, first, theirs, *partition.add(tokens, first, theirs))
                whole += float(theirs.square().sum())
                for n, score in enumerate(scores):
                    mine = self._fork_logits(weight, tokens, (n + 1) * count)
                    score.add(block, mine)
                    apart[n] += float((mine - theirs).square().sum())
        for layer, score, distance in zip(self._forked, scores, apart, strict=True):
            divergence = score.result(partition).divergence / count
            self.losses[layer] = LayerLoss(distance / whole if whole else 0.0, max(0.0, divergence))

    def _fork_logits(self, weight: Tensor, tokens: slice, start: int) -> Tensor:
        return self.logits(weight, slice(start + tokens.start, start + tokens.stop)).double()
