"""One budget of the masked parent, on its own way through all calls of a plan, layer by layer.

Rows run one at a time with T = length: what the batch of the other side must not mix up or pad into. Linear layers run
once for all rows and calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elastic_export.graph.facts import StateSlice
from elastic_export.reference import Masks
from elastic_export.reference.call import Call
from elastic_export.reference.mixers import multiply
from elastic_export.reference.model import Block
from elastic_export.reference.segments import Segments
from elastic_export.verify.oracle import Array, Oracle, cut_state
from elastic_export.verify.plan import Plan


@dataclass(frozen=True)
class Fed:
    """One row in one call that feeds it `count` tokens from `at` on."""

    call: int
    row: int
    at: int
    count: int


def feeds(plan: Plan) -> list[Fed]:
    """All of a plan, row by row and there call by call."""
    found = []
    for row in range(len(plan.ids)):
        at = 0
        for call, step in enumerate(plan.steps):
            if step.length[row]:
                found.append(Fed(call, row, at, step.length[row]))
            at += step.length[row]
    return found


def last_tokens(fed: Sequence[Fed], *, every: bool) -> list[int]:
    """Where among all tokens those stand that logits are asked of: each feed's last one, or all."""
    ends = np.cumsum([feed.count for feed in fed])
    return list(range(ends[-1])) if every else (ends - 1).tolist()


class MaskedParent:
    """The masked parent's answer to every call, in float32.

    Attributes:
        fed: what was fed, in the order of the tokens.
        logits: [n, V] after the head: of each feed's last token, or of all tokens.
    """

    def __init__(
        self, oracle: Oracle, masks: Masks, slices: Sequence[StateSlice], plan: Plan, *, every_token: bool = False
    ) -> None:
        self._oracle, self._masks, self._slices, self._plan = oracle, masks, slices, plan
        self.fed, self.every_token = feeds(plan), every_token
        numbers = {(feed.row, feed.call): number for number, feed in enumerate(self.fed)}
        follows = [n - 1 if n and self.fed[n - 1].row == feed.row else None for n, feed in enumerate(self.fed)]
        self._calls = [Call(torch.tensor([feed.at]), torch.tensor([feed.count]), {}, masks) for feed in self.fed]
        self._batch = Segments(self._calls, follows)
        self._latest = [
            [max((numbers[row, c] for c in range(call + 1) if (row, c) in numbers), default=None) for row in self._rows]
            for call in range(len(plan.steps))
        ]
        ids = np.concatenate([plan.ids[feed.row, feed.at : feed.at + feed.count] for feed in self.fed])
        self.stream = oracle.embed(ids, masks)

    @property
    def _rows(self) -> range:
        return range(len(self._plan.ids))

    def layer(self, block: Block) -> None:
        """Go through one layer; its states after each call are there until the next one."""
        if not bool(self._masks[f"branch.{block.index}"].any()):
            self._oracle.check_layer_weights(block)  # skipped: it adds nothing
            return
        self._start = self._oracle.states_of(block.index, self._plan.context)
        for call in self._calls:
            call.state, call.new_state = self._start, {}
        self.stream = block(self.stream, self._batch)
        self._oracle.check_layer(self.stream, block)
        self._parts = {name: part for name in self._start for part in self._slices if self._is(part, name, block.index)}

    def states(self, call: int) -> dict[str, Array]:
        """The sub-model's states that the last layer has after a call, by their input names: [B, …]."""
        rows = [self._start if latest is None else self._calls[latest].new_state for latest in self._latest[call]]
        return {
            part.input: np.stack([cut_state(states[name][0].numpy(), part) for states in rows])
            for name, part in self._parts.items()
        }

    def begin_head(self) -> None:
        """The final norm, with its weight at hand; then `head` may be asked."""
        picked = self.stream[:, last_tokens(self.fed, every=self.every_token)]
        self._normed = self._oracle.normed(picked, self._batch)
        self.logits = np.zeros((picked.shape[1], self._oracle.architecture.vocab_size), np.float32)

    def head(self, first: int, weight: Tensor) -> None:
        """The logits of some rows of the head's matrix, from `first` on."""
        self.logits[:, first : first + len(weight)] = multiply(self._normed, weight)[0].numpy()

    @staticmethod
    def _is(part: StateSlice, name: str, index: int) -> bool:
        return part.layer == index and part.kind == name.split(".", maxsplit=1)[0]
