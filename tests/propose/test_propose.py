"""Proposals where the right answer is known, and what holds of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from elastic_export.checkpoint.budgets import nesting_warnings
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate.evaluate import evaluate
from elastic_export.evaluate.from_checkpoint import sub_model
from elastic_export.evaluate.passage import Passage
from elastic_export.layers.budget import Budget
from elastic_export.progress import Progress
from elastic_export.propose import measuring
from elastic_export.propose.propose import Proposal
from elastic_export.propose.store import Store
from elastic_export.propose.target import TOLERANCE
from sorted_model import ARCH, FFN_USED, IDLE, write_sorted
from synthetic import random_budget

Proposed = Callable[..., Proposal]
FULL = Budget.full(ARCH, "full")
#: All of the parent that does something.
FREE = replace(FULL, name="b0", ffn_sizes=(FFN_USED,) * len(ARCH.ffn_sizes), skip_layers=IDLE)


def size(budget: Budget) -> int:
    return budget.architecture(ARCH).parameters()


def test_what_does_nothing_is_what_goes(checkpoint: Checkpoint, proposed: Proposed) -> None:
    found = proposed(checkpoint, size(FREE))
    assert found.budgets == [FREE]
    assert found.scores[0].divergence < 1e-6 * found.parent.nats
    assert set(found.layers) == set(range(len(ARCH.pattern)))
    assert set(list(found.layers)[: len(IDLE)]) == set(IDLE)
    assert found.warnings == []


def test_budgets_have_their_sizes_and_are_nested(checkpoint: Checkpoint, proposed: Proposed) -> None:
    limits = [int(part * size(FULL)) for part in (0.8, 0.6, 0.4)]
    found = proposed(checkpoint, *limits)
    for budget, limit in zip(found.budgets, limits, strict=True):
        assert limit * (1 - TOLERANCE) <= size(budget) <= limit
    assert nesting_warnings(ARCH, [FULL, *found.budgets]) == []
    losses = [scored.divergence for scored in found.scores]
    assert losses == sorted(losses)


def test_they_cost_less_than_random_budgets_of_their_size(
    checkpoint: Checkpoint, proposed: Proposed, passage: Passage
) -> None:
    limit = int(0.6 * size(FULL))
    [score] = proposed(checkpoint, limit).scores
    rng = np.random.default_rng(0)
    drawn = [
        budget for budget in (random_budget(ARCH, rng) for _ in range(3000)) if 0.98 * limit < size(budget) < limit
    ]
    others = [replace(budget, name="other") for budget in drawn[:12]]
    assert len(others) >= 10
    subjects = [(sub_model(checkpoint, budget), "fp32") for budget in (FULL, *others)]
    _, *scores = evaluate(subjects, 0, passage, Progress())
    assert score.divergence < min(other.divergence for other in scores)


def test_axes_that_nobody_sorted_are_named(tmp_path: Path, proposed: Proposed) -> None:
    mixed = Checkpoint.open(write_sorted(tmp_path / "mixed", falling=False), require_budgets=False)
    found = proposed(mixed, int(0.7 * size(FULL)), rounds=1)
    [warning] = found.warnings
    assert warning.startswith("not sorted by importance: hidden_size (KL ")
    assert "intermediate_size" in warning


def test_equal_inputs_give_equal_proposals(
    checkpoint: Checkpoint, proposed: Proposed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so does whoever is interrupted after any walk and begins again."""
    monkeypatch.setattr(measuring, "LAYERS", 4)
    limit = int(0.8 * size(FULL))
    whole = proposed(checkpoint, limit, rounds=1, store=Store(tmp_path / "one", {}))
    put, walks = Store.put, 0

    def interrupted(self: Store, found: dict[str, list[float]]) -> None:
        nonlocal walks
        put(self, found)
        walks += 1
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "put", interrupted)
    found = None
    while found is None:
        try:
            found = proposed(checkpoint, limit, rounds=1, store=Store(tmp_path / "two", {}))
        except KeyboardInterrupt:
            continue
    assert walks > 4
    assert found == whole
    assert list(found.layers) == list(whole.layers)
