"""Must-show 3: the file of any budget is the masked parent, however the prompt is cut (1e-4 in float32).

Twelve random architectures, ten budgets each and more, driven by hypothesis: widths, skipped layers, and how two rows
of tokens are cut into calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.reference import budget_masks, empty_state
from masked_parent import full_masks
from synthetic import random_architecture

TOLERANCE = 1e-4
SEEDS = (1, 5, 6, 9, 11, 12, 14, 16, 21, 22, 23, 24)


def architecture(seed: int) -> Architecture:
    return random_architecture(np.random.default_rng(seed))


def widths(most: int, step: int = 1) -> st.SearchStrategy[int]:
    return st.one_of(st.just(most), st.integers(1, most // step).map(lambda n: n * step))


@st.composite
def budgets(draw: st.DrawFn, arch: Architecture) -> Budget:
    """Any legal budget: each width whole or cut, per layer where it may be, any layers skipped but one."""
    layers = len(arch.pattern)
    skipped = draw(st.one_of(st.just(set()), st.sets(st.integers(0, layers - 1), max_size=layers - 1)))
    return Budget(
        name="drawn",
        hidden_size=draw(widths(arch.hidden_size)),
        ffn_sizes=tuple(draw(widths(f)) for f in arch.ffn_sizes),
        mamba_heads=tuple(draw(widths(h, arch.ssm_groups)) for h in arch.mamba_heads),
        mamba_head_dim=draw(widths(arch.mamba_head_dim)),
        attention_heads=draw(widths(arch.attention_heads, arch.kv_heads)),
        skip_layers=tuple(sorted(skipped)),
    )


@st.composite
def cuts(draw: st.DrawFn) -> list[tuple[int, tuple[int, int]]]:
    """One to five calls of 1 to 9 tokens, or of more than a chunk; any part of the tokens real, none included."""
    calls = []
    for _ in range(draw(st.integers(1, 5))):
        tokens = draw(st.one_of(st.integers(1, 9), st.sampled_from([1, 63, 64, 65])))
        calls.append((tokens, (draw(st.integers(0, tokens)), draw(st.integers(0, tokens)))))
    return calls


@pytest.mark.parametrize("seed", SEEDS)
def test_each_layer_of_these_models_matters(seed: int, parent_of: Callable[[Architecture], Any]) -> None:
    """Deleting any one layer moves the logits by 5 % or more: a fault in it cannot hide below the tolerance."""
    parent = parent_of(architecture(seed))
    arch, rng = parent.arch, np.random.default_rng(seed)
    ids = torch.from_numpy(rng.integers(0, arch.vocab_size, (1, 24)))
    start = empty_state(arch, 1, 24, torch.float64)
    arguments = ids, torch.tensor([0]), torch.tensor([24]), start
    whole, _ = parent.reference(*arguments, full_masks(arch, torch.float64))
    for layer in range(len(arch.pattern)):
        budget = replace(Budget.full(arch, "without one"), skip_layers=(layer,))
        without, _ = parent.reference(*arguments, budget_masks(arch, budget, torch.float64))
        moved = float((without - whole).norm() / whole.norm())
        assert moved >= 0.05, (layer, arch.pattern, moved)


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_budget_is_the_masked_parent(
    seed: int, data: st.DataObject, parent_of: Callable[[Architecture], Any], cut_type: Callable[..., Any]
) -> None:
    parent = parent_of(architecture(seed))
    budget = data.draw(budgets(parent.arch), label="budget")
    calls = [cut_type(*call) for call in data.draw(cuts(), label="cuts")]
    masks = parent.masks(budget)
    model = parent.compile(masks, budget.architecture(parent.arch))
    assert parent.foreign_runs(model, budget) == []
    errors = parent.errors(model, masks, calls, seed)
    assert set(errors) == {"logits", *(port.name for port in model.states())}
    assert max(errors.values()) <= TOLERANCE, errors
