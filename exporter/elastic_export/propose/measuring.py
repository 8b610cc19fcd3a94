"""Measures points and layers on a text, a few of them in each walk over the weights, each of them once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from elastic_export.checkpoint.budgets import budget_document
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate.cost import weight_bytes
from elastic_export.evaluate.evaluate import Subject, evaluate
from elastic_export.evaluate.from_checkpoint import PARENT, sub_model
from elastic_export.evaluate.passage import Passage
from elastic_export.evaluate.score import Scored
from elastic_export.layers.budget import Budget
from elastic_export.progress import Progress
from elastic_export.propose.grid import Grid, Point
from elastic_export.propose.ranking import LayerLoss, layer_losses
from elastic_export.propose.search import TOGETHER
from elastic_export.propose.store import Store

T = TypeVar("T")
#: Layers that are left out, one in each stream, in one walk: what they make of a layer is held together.
LAYERS = 32


@dataclass(frozen=True)
class Cut:
    """A point to measure; `last` keeps the last channels in place of the first (`layers.axis.kept_of`)."""

    point: Point
    last: bool = False


class Measuring:
    """Measures cuts of one checkpoint.

    Args:
        checkpoint: whose weights.
        grid: whose points.
        store: keeps what was measured.
        progress: hears of every walk.
    """

    def __init__(self, checkpoint: Checkpoint, grid: Grid, store: Store, progress: Progress) -> None:
        self._checkpoint, self._grid, self._store, self._progress = checkpoint, grid, store, progress
        self._parent = sub_model(checkpoint, Budget.full(checkpoint.architecture, PARENT))
        self._total = weight_bytes(self._parent)

    def layers(self, passage: Passage) -> dict[int, LayerLoss]:
        """What each layer of the parent costs, where it alone is left out."""
        every = range(len(self._grid.parent.pattern))
        # The same layers together whatever is known already: products of other shapes differ in their last bits.
        for walk in _walks(every, LAYERS):
            if all(self._store.get(_layer_key(layer)) is not None for layer in walk):
                continue
            what = f"{walk[0]} to {walk[-1]}"
            found = layer_losses(self._parent, walk, passage, self._progress, self._total, what)
            self._store.put({_layer_key(layer): [loss.mse, loss.divergence] for layer, loss in found.items()})
        known = {layer: self._store.get(_layer_key(layer)) for layer in every}
        return {layer: LayerLoss(*values) for layer, values in known.items() if values is not None}

    def losses(self, cuts: Sequence[Cut], passage: Passage, what: str) -> list[float]:
        """KL divergences from the parent, nats a token; `what` is said of the walk."""
        return [scored.divergence / passage.tokens for scored in self.scores(cuts, passage, what)[1:]]

    def scores(self, cuts: Sequence[Cut], passage: Passage, what: str) -> list[Scored]:
        """What the parent says of the text, and then each cut."""
        parent = Cut(self._grid.whole)
        keys = {cut: self._key(cut, passage) for cut in (parent, *cuts)}
        missing = [cut for cut, key in keys.items() if self._store.get(key) is None and cut != parent]
        if not missing and self._store.get(keys[parent]) is None:
            missing = [parent]
        walks = _walks(missing, TOGETHER)
        for number, walk in enumerate(walks):
            name = what if len(walks) == 1 else f"{what}, {number + 1} of {len(walks)}"
            self._walk([parent, *(cut for cut in walk if cut != parent)], keys, passage, name)
        found = [self._store.get(keys[cut]) for cut in (parent, *cuts)]
        return [Scored(values[0], values[1], int(values[2])) for values in found if values is not None]

    def subject(self, cut: Cut) -> Subject:
        """What `evaluate` takes."""
        budget = self._grid.budget(cut.point)
        return sub_model(self._checkpoint, budget, last=cut.last), "fp32"

    def _walk(self, cuts: Sequence[Cut], keys: dict[Cut, str], passage: Passage, what: str) -> None:
        subjects = [(self._parent, "fp32"), *(self.subject(cut) for cut in cuts[1:])]
        total = sum(weight_bytes(model) for model, _ in subjects)
        found = evaluate(subjects, 0, passage, self._progress, total, ("budgets", what))
        values = zip(cuts, found, strict=True)
        self._store.put({keys[cut]: [scored.nats, scored.divergence, scored.agreed] for cut, scored in values})

    def _key(self, cut: Cut, passage: Passage) -> str:
        document = budget_document(self._grid.parent, self._grid.budget(cut.point))
        return json.dumps([document, cut.last, passage.tokens, passage.context], sort_keys=True)


def _walks(items: Sequence[T], most: int) -> list[Sequence[T]]:
    """As few as can be, and as even."""
    count = -(-len(items) // most)
    return [items[len(items) * n // count : len(items) * (n + 1) // count] for n in range(count)]


def _layer_key(layer: int) -> str:
    return f"without layer {layer}"
