"""The distance of a quantised sub-model from itself, against a plain forward pass of the masked parent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate.counterpart import counterparts, rounded_models
from elastic_export.evaluate.distance import Pair, relative_error
from elastic_export.evaluate.evaluate import evaluate
from elastic_export.evaluate.from_checkpoint import checkpoint_models
from elastic_export.evaluate.passage import Passage
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits
from elastic_export.progress import Progress
from elastic_export.reference import budget_masks, empty_state
from elastic_export.reference.call import Call
from masked_parent import load_reference
from small_text_model import ARCH, FULL, SMALL, TEXT

CONTEXT = 64
Read = Callable[[str], np.ndarray[Any, Any]]


def rounded(checkpoint: Checkpoint) -> Read:
    """The parent's tensors, those of even matrices as the nearest multiples of 1/127 of each row's largest value."""
    matrices = EightBits.of(ARCH, checkpoint.budgets.values()).tensors

    def read(name: str) -> np.ndarray[Any, Any]:
        array = np.asarray(checkpoint.read(name)).astype(np.float32)
        if name not in matrices:
            return array
        scale = np.abs(array).max(axis=1, keepdims=True) / np.float32(127)
        return np.rint(array / scale) * scale

    return read


def streams(read: Read, budget: Budget, windows: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The residual stream before and after each layer of the parent, all windows' tokens, and their logits."""
    model, masks = load_reference(ARCH, read, every_token=True), budget_masks(ARCH, budget)
    found, logits = [list[Tensor]() for _ in range(len(ARCH.pattern) + 1)], list[Tensor]()
    for ids in windows:
        state = empty_state(ARCH, 1, len(ids), torch.float32)
        call = Call(torch.tensor([0]), torch.tensor([len(ids)]), state, masks)
        with torch.inference_mode():
            x = model.embed(ids[None], call)
            found[0].append(x)
            for place, layer in enumerate(model.body.layers):
                x = layer(x, call)
                found[place + 1].append(x)
            logits.append(model.head(x, call)[0, :-1])
    return [torch.cat(parts, dim=1).double() for parts in found], torch.cat(logits).double()


def apart(mine: Tensor, theirs: Tensor) -> float:
    return float((mine - theirs).norm() / theirs.norm())


@pytest.mark.usefixtures("cut_finely")
def test_stream_and_logits_are_as_far_apart_as_in_a_plain_forward_pass(
    checkpoint: Checkpoint, passage_of: Callable[..., Passage]
) -> None:
    passage, models = passage_of(TEXT[:200], CONTEXT), checkpoint_models(checkpoint, "full,small")[0]
    compared, parent = counterparts(rounded_models(checkpoint, models), checkpoint)
    assert parent is compared[0].plain
    subjects = [(model, "fp32") for each in compared for model in (each.plain, each.quantised)]
    pairs = [Pair(1, 0), Pair(3, 2)]
    scores = evaluate(subjects, 0, passage, Progress(), pairs=pairs)
    windows = [torch.from_numpy(window.ids) for window in passage.windows]
    for budget, pair in ((FULL, pairs[0]), (SMALL, pairs[1])):
        (mine, mine_logits), (theirs, plain_logits) = (
            streams(read, budget, windows) for read in (rounded(checkpoint), checkpoint.read)
        )
        found = pair.result()
        assert found.embedding == pytest.approx(apart(mine[0], theirs[0]), rel=1e-4)
        kept = budget.kept_layers(ARCH)
        assert list(found.layers) == list(kept)
        for place in kept:
            assert found.layers[place] == pytest.approx(apart(mine[place + 1], theirs[place + 1]), rel=1e-3), place
        assert found.logits == pytest.approx(apart(mine_logits, plain_logits), rel=1e-3)
        p, q = plain_logits.log_softmax(dim=-1), mine_logits.log_softmax(dim=-1)
        assert found.divergence == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-3)
        assert found.agreed == int((p.argmax(-1) == q.argmax(-1)).sum())
        assert found.divergence > 0
    # Of the parent's own rounding both ways of comparing say the same; those of others are compared with the parent.
    assert scores[1].divergence == pairs[0].result().divergence
    assert scores[3].divergence > 2 * pairs[1].result().divergence


def test_scores_do_not_depend_on_who_is_compared(checkpoint: Checkpoint, passage_of: Callable[..., Passage]) -> None:
    passage, models = passage_of(TEXT[:100], CONTEXT), checkpoint_models(checkpoint, "all")[0]
    quantised = rounded_models(checkpoint, models)
    subjects = [(model, "fp32") for model in (*models, *quantised)]
    pairs = [Pair(3 + n, n) for n in range(3)]
    alone = evaluate(subjects, 0, passage, Progress())
    for mine, theirs in zip(evaluate(subjects, 0, passage, Progress(), pairs=pairs), alone, strict=True):
        assert mine.agreed == theirs.agreed
        assert (mine.nats, mine.divergence) == pytest.approx((theirs.nats, theirs.divergence), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [([3.0, 4.0], [3.0, 4.0], 0.0), ([3.0, 4.5], [3.0, 4.0], 0.1), ([0.0], [0.0], 0.0), ([1e-3], [0.0], 1.0)],
)
def test_the_error_is_relative_to_all_of_the_stream(found: list[float], expected: list[float], error: float) -> None:
    mine, theirs = (torch.tensor(values).repeat(1, 2000, 1) for values in (found, expected))
    assert relative_error(mine, theirs) == pytest.approx(error, rel=1e-6)
