"""Evaluates sub-models on a text: one pass over the parent's layers serves all budgets and precisions.

A layer's weights are read, every sub-model takes its slices of them and its stream goes through, and they are dropped.
The head goes the same way in blocks of rows. A parent larger than the memory can be evaluated so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from elastic_export.evaluate.passage import Passage
from elastic_export.evaluate.runner import TOGETHER, Runner, asked_tokens
from elastic_export.evaluate.score import Block, Partition, Score, Scored
from elastic_export.evaluate.sub_model import SubModel
from elastic_export.progress import Gauge, Progress
from elastic_export.verify.way import head_blocks
from elastic_export.verify.workers import Workers, workers_for

#: A sub-model and a precision to evaluate it in.
Subject = tuple[SubModel, str]


def evaluate(
    subjects: Sequence[Subject],
    reference: int,
    passage: Passage,
    progress: Progress,
    total: int = 0,
    step: tuple[str, str] | None = None,
) -> list[Scored]:
    """Score the text with every subject.

    Args:
        subjects: what is evaluated, all of one vocabulary.
        reference: which of them the others are compared with.
        passage: the text.
        progress: hears how far it is.
        total: bytes of weights of all subjects together, for the progress.
        step: its name and what of there; None: `evaluate` and the text's name.

    Memory: of two subjects at a time a layer as it is stored and what `TOGETHER` tokens make of it, and of each the
    stream of all tokens. See `cost.py`.

    Raises:
        InputError: a value is not finite; the tensor, or the layer and the budget, are named.
        BuildError: a precision cannot hold a weight.
    """
    arch = max((model.architecture for model, _ in subjects), key=lambda arch: arch.hidden_size)
    name, what = step or ("evaluate", passage.name)
    with workers_for(arch.hidden_size) as workers, torch.inference_mode(), progress.step(name, what=what):
        runners: list[Runner] = []
        progress.watch(Gauge(total, lambda: sum(runner.passed for runner in runners)))
        for model, precision in subjects:
            runners.append(Runner(model, precision, passage))
        for place in sorted({place for model, _ in subjects for place in model.layers}):
            workers.run(partial(runner.layer, place) for runner in runners)
        return _head(runners, reference, passage, head_blocks(arch), workers)


def _head(
    runners: Sequence[Runner], reference: int, passage: Passage, blocks: Sequence[tuple[int, int]], workers: Workers
) -> list[Scored]:
    asked, ids = asked_tokens(passage)
    targets = torch.from_numpy(ids)
    workers.run(partial(runner.begin_head, asked) for runner in runners)
    partition, scores = Partition(len(targets)), [Score(targets) for _ in runners]
    for first, count in blocks:
        rows = [runner.head_rows(first, count) for runner in runners]
        for begin in range(0, len(targets), TOGETHER):
            tokens = slice(begin, begin + TOGETHER)
            theirs = runners[reference].logits(rows[reference], tokens).double()
            block = Block(tokens, first, theirs, *partition.add(tokens, first, theirs))
            scores[reference].add(block, theirs)
            others = [
                each for number, each in enumerate(zip(runners, rows, scores, strict=True)) if number != reference
            ]
            workers.run(partial(_add, block, *other) for other in others)
    return [score.result(partition) for score in scores]


def _add(block: Block, runner: Runner, weight: Tensor, score: Score) -> None:
    score.add(block, runner.logits(weight, block.tokens))
