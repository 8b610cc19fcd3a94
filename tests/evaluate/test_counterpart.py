"""Which sub-model is compared with which, and what a checkpoint rounds to that nobody has written yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate.counterpart import budget_of, counterparts, rounded_models
from elastic_export.evaluate.from_checkpoint import checkpoint_models, sub_model
from elastic_export.evaluate.sub_model import SubModel
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import tensor_runs
from elastic_export.plan.eight_bits import eight_bits_of, weight_bytes
from elastic_export.runs import positions
from elastic_runtime.errors import InputError
from elastic_runtime.ort.weight_source import Held
from small_text_model import ARCH, EVEN, SMALL

BUDGETS = st.builds(
    Budget,
    st.just("any"),
    st.integers(1, ARCH.hidden_size),
    st.tuples(*(st.integers(1, size) for size in ARCH.ffn_sizes)),
    st.tuples(*(st.sampled_from(range(2, heads + 1, 2)) for heads in ARCH.mamba_heads)),
    st.integers(1, ARCH.mamba_head_dim),
    st.sampled_from(range(ARCH.kv_heads, ARCH.attention_heads + 1, ARCH.kv_heads)),
    st.sets(st.sampled_from(range(len(ARCH.pattern))), max_size=len(ARCH.pattern) - 1).map(lambda s: tuple(sorted(s))),
)


def model_of(budget: Budget) -> SubModel:
    """Without weights."""
    return SubModel("small", budget.architecture(ARCH), budget.kept_layers(ARCH), "backbone", "bf16", Held(()))


@given(BUDGETS)
def test_any_budget_is_found_again_from_its_sub_model(budget: Budget) -> None:
    assert tensor_runs(ARCH, budget_of(model_of(budget), ARCH, "parent")) == tensor_runs(ARCH, budget)


@pytest.mark.parametrize(
    ("parent", "told"),
    [
        ({"vocab_size": 300}, "budget small: expected vocab_size 264, or what is cut to it, found 300 in other"),
        ({"hidden_size": 16}, "expected hidden_size 20, or what is cut to it, found 16 in other"),
        ({"ssm_state": 99}, "expected ssm_state .*found 99 in other"),
        ({"epsilon": 1e-3}, "expected epsilon 1e-05, or what is cut to it, found 0.001"),
        ({"time_step_limit": (0.1, 1.0)}, "time_step_limit"),
        ({"pattern": "M" * len(ARCH.pattern)}, "expected a parent with the layers .*found other with MMM"),
        ({"pattern": ARCH.pattern[:2]}, "expected a parent with the layers"),
    ],
)
def test_a_sub_model_of_another_parent_is_refused_by_the_width(parent: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        budget_of(model_of(SMALL), replace(ARCH, **parent), "other")


def test_the_parent_is_added_under_the_name_of_the_budget_that_is_all_of_it(checkpoint: Checkpoint) -> None:
    models = checkpoint_models(checkpoint, "small,even")[0]
    compared, parent = counterparts(rounded_models(checkpoint, models), checkpoint)
    assert [each.plain.name for each in compared] == ["small", "even"]
    assert (parent.name, parent.architecture, parent.quantisation) == ("full", ARCH, None)


def test_rows_of_the_parent_are_rounded_and_then_cut(checkpoint: Checkpoint) -> None:
    """Whole rows set the scale, also where the sub-model keeps none of their largest values."""
    runs = tensor_runs(ARCH, EVEN)
    matrices = eight_bits_of(checkpoint).matrices
    name = next(matrix.names[0] for matrix in matrices if matrix.transposed and matrix.names[0] in runs)
    [quantised] = rounded_models(checkpoint, [sub_model(checkpoint, EVEN)])
    whole = np.asarray(checkpoint.read(name)).astype(np.float32)
    kept = [positions(axis) for axis in runs[name]]
    scale = np.abs(whole).max(axis=1, keepdims=True) / np.float32(127)
    expected = (np.rint(whole / scale) * scale)[np.ix_(*kept)]
    np.testing.assert_allclose(quantised.weights.load(name), expected, rtol=1e-6)
    assert quantised.quantisation is not None
    nbytes = weight_bytes(checkpoint, EVEN, "bf16", eight_bits_of(checkpoint))
    assert quantised.quantisation.engine == ("bf16", nbytes)


def test_a_nan_is_told_by_its_tensor(own_source: Callable[..., Path]) -> None:
    def spoil(weights: dict[str, Any]) -> None:
        weights["lm_head.weight"][7, 3] = np.nan

    checkpoint = Checkpoint.open(own_source(spoil))
    [quantised] = rounded_models(checkpoint, [sub_model(checkpoint, EVEN)])
    with pytest.raises(InputError, match=r"tensor 'lm_head\.weight': expected finite values"):
        quantised.weights.rows("lm_head.weight", 0, 10)
