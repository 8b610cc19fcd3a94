"""Evaluates sub-models on a text: one pass over the parent's layers serves all budgets and precisions.

A layer's weights are read, every sub-model takes its slices of them and its stream goes through, and they are dropped.
The head goes the same way in blocks of rows. A parent larger than the memory can be evaluated so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from elastic_export.evaluate.distance import Pair
from elastic_export.evaluate.passage import Passage
from elastic_export.evaluate.runner import TOGETHER, Runner, asked_tokens
from elastic_export.evaluate.score import Block, Partition, Score, Scored
from elastic_export.evaluate.sub_model import SubModel
from elastic_export.progress import Gauge, Progress
from elastic_export.verify.way import head_blocks
from elastic_export.verify.workers import Task, Workers, workers_for
from elastic_runtime.format.interface import Precision

#: A sub-model and a precision to evaluate it in.
Subject = tuple[SubModel, Precision]


def evaluate(
    subjects: Sequence[Subject],
    reference: int,
    passage: Passage,
    progress: Progress,
    total: int = 0,
    step: tuple[str, str] | None = None,
    pairs: Sequence[Pair] = (),
) -> list[Scored]:
    """Score the text with every subject.

    Args:
        subjects: what is evaluated, all of one vocabulary.
        reference: which of them the others are compared with.
        passage: the text.
        progress: hears how far it is.
        total: bytes of weights of all subjects together, for the progress.
        step: its name and what of there; None: `evaluate` and the text's name.
        pairs: subjects whose distance is wanted; a quantised one is in one of them at most and not the reference.

    Memory: of two subjects at a time a layer as it is stored and what `TOGETHER` tokens make of it, and of each the
    stream of all tokens. See `cost.py`.

    Raises:
        InputError: a value is not finite; the form of the budget, the precision, and the tensor or layer are named.
        BuildError: a precision cannot hold a weight.
    """
    arch = max((model.architecture for model, _ in subjects), key=lambda arch: arch.hidden_size)
    name, what = step or ("evaluate", passage.name)
    with workers_for(arch.hidden_size) as workers, torch.inference_mode(), progress.step(name, what=what):
        runners: list[Runner] = []
        progress.watch(Gauge(total, lambda: sum(runner.passed for runner in runners)))
        for model, precision in subjects:
            runners.append(Runner(model, precision, passage))
        for pair in pairs:
            pair.embedded(runners[pair.quantised].stream, runners[pair.plain].stream)
        for place in sorted({place for model, _ in subjects for place in model.layers}):
            workers.run(partial(runner.layer, place) for runner in runners)
            for pair in pairs:
                if place in subjects[pair.plain][0].layers:
                    pair.after(place, runners[pair.quantised].stream, runners[pair.plain].stream)
        return _Head(runners, reference, passage, pairs, workers).scores(head_blocks(arch))


class _Head:
    """The logits of all subjects and what they say of the text, a block of the head's rows after the other."""

    def __init__(
        self, runners: Sequence[Runner], reference: int, passage: Passage, pairs: Sequence[Pair], workers: Workers
    ) -> None:
        asked, ids = asked_tokens(passage)
        self._runners, self._reference, self._pairs, self._workers = runners, reference, pairs, workers
        self._targets = torch.from_numpy(ids)
        workers.run(partial(runner.begin_head, asked) for runner in runners)
        self._partition = Partition(len(ids))
        self._scores = [Score(self._targets) for _ in runners]
        for pair in pairs:
            pair.begin_head(self._targets)

    def scores(self, blocks: Sequence[tuple[int, int]]) -> list[Scored]:
        for first, count in blocks:
            rows = [runner.head_rows(first, count) for runner in self._runners]
            for begin in range(0, len(self._targets), TOGETHER):
                tokens = slice(begin, begin + TOGETHER)
                theirs = self._runners[self._reference].logits(rows[self._reference], tokens)
                wide = theirs.double()
                block = Block(tokens, first, wide, *self._partition.add(tokens, first, wide))
                self._workers.run(self._tasks(block, rows, theirs))
        return [score.result(self._partition) for score in self._scores]

    def _tasks(self, block: Block, rows: Sequence[Tensor], theirs: Tensor) -> Iterator[Task]:
        """One for each subject that is nobody's quantised one; those go along with what they are compared with, so
        that nobody's logits are computed twice.
        """
        followers = {pair.quantised for pair in self._pairs}
        for number in range(len(self._runners)):
            if number not in followers:
                known = theirs if number == self._reference else None
                yield partial(self._add, block, rows, number, known)

    def _add(self, block: Block, rows: Sequence[Tensor], number: int, known: Tensor | None) -> None:
        logits = self._runners[number].logits(rows[number], block.tokens) if known is None else known
        self._scores[number].add(block, logits)
        for pair in (pair for pair in self._pairs if pair.plain == number):
            quantised = self._runners[pair.quantised].logits(rows[pair.quantised], block.tokens)
            self._scores[pair.quantised].add(block, quantised)
            pair.add(block.tokens, block.first, quantised, logits)
