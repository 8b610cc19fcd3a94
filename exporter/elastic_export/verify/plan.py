"""The run that a verification makes: a ragged batch, a prompt cut in several calls, then decode steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
SEED = 20251116
#: In every cache row before it is written; finite, since 0·NaN of a masked row would be NaN anywhere.
POISON = 971.0
_LONG = 130  # three chunks of 64 tokens: state passes from before the call to its end past two others


@dataclass(frozen=True)
class Step:
    """One call: `tokens` is T, `length` [B] the real tokens of each row."""

    tokens: int
    length: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Seeded ids [B, total] and the calls that feed them. `context` is the S the run needs."""

    seed: int
    ids: Ints
    steps: tuple[Step, ...]
    context: int


def walk(plan: Plan, vocab: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """`input_ids` [B, T], `position` [B] and `length` [B] of each call; padding is junk, which must not matter."""
    position, junk = np.zeros(len(plan.ids), np.int64), np.random.default_rng(plan.seed + 1)
    for step in plan.steps:
        length = np.array(step.length, np.int64)
        ids = junk.integers(0, vocab, (len(plan.ids), step.tokens), dtype=np.int64)
        for row, (at, count) in enumerate(zip(position, length, strict=True)):
            ids[row, :count] = plan.ids[row, at : at + count]
        yield ids, position, length
        position = position + length


def make_plan(*, vocab: int, max_tokens: int, max_context: int, seed: int = SEED) -> Plan:
    """A plan of batch 2 within the limits of an export.

    A call that fills the states, a long one from there (three chunks of the scan where the limits allow, and a row that
    ends in the first), one in which a row is idle, one of ragged lengths, then decode steps, one with an idle row.
    Steps that would pass the context are left out. Some call is ragged even where there is room for one token only.
    """
    few, some = min(max_tokens, 3, _half(max_context)), min(max_tokens, 9, _half(max_context))
    longest = min(max_tokens, _LONG, _half(max_context))
    wanted = [
        Step(some, (some, max(some // 2, some - 2))),
        Step(longest, (max(1, longest // 2 - 4), longest)),
        Step(some, (0, some)),
        Step(few, (few, max(1, few - 1))),
        *(Step(1, (1, 1)) for _ in range(4)),
        Step(1, (1, 0)),
        Step(1, (1, 1)),
    ]
    position, steps = np.zeros(2, np.int64), list[Step]()
    for step in wanted:
        if int(position.max()) + step.tokens <= max_context:
            steps.append(step)
            position += np.array(step.length)
    total = int(position.max())
    ids = np.random.default_rng(seed).integers(0, vocab, (2, total), dtype=np.int64)
    for row, end in enumerate(position):
        ids[row, end:] = 0
    return Plan(seed, ids, tuple(steps), min(max_context, total + longest))


def _half(context: int) -> int:
    return max(1, context // 2)
