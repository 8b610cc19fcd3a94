"""Synthetic models: reach, determinism, and weights under which every layer matters."""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.checkpoint.budgets import budgets_document, parse_budgets
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import inverse_softplus_of_step, log_decay, normal, random_weights, uniform
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import slice_array, sub_model_name, tensor_runs
from synthetic import NANO_9B, NANO_12B, random_architecture, random_budget, write_sparse_checkpoint

Forward = Callable[..., np.ndarray[Any, Any]]


def test_architectures_reach_far() -> None:
    seen = [random_architecture(np.random.default_rng(seed)) for seed in range(400)]
    mamba = [a for a in seen if a.mamba_heads]
    assert {a.ssm_groups for a in seen} == {1, 2, 3, 4}
    assert {a.mamba_heads[0] // a.ssm_groups for a in mamba} == set(range(1, 7))
    assert {a.mamba_head_dim for a in seen} == {8, 12, 20, 24, 40}
    assert {a.conv_kernel for a in seen} == {2, 3, 4}
    assert {(a.kv_heads, a.attention_heads // a.kv_heads) for a in seen} == {
        (i, j) for i in range(1, 5) for j in range(1, 5)
    }
    assert {len(a.pattern) for a in seen} == set(range(3, 10))
    assert all(ffn % 8 for a in seen for ffn in a.ffn_sizes)
    whole = sum(set(a.pattern) == {"M", "-", "*"} for a in seen)
    assert 0.8 * len(seen) < whole < len(seen)


def test_budgets_reach_far_and_are_valid() -> None:
    keys: set[str] = set()
    lists = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        a = random_architecture(rng)
        document = budgets_document(a, [random_budget(a, rng, "b")])
        parse_budgets(document, a, "b")
        keys |= set(document["budgets"]["b"])
        lists += sum(isinstance(value, list) for key, value in document["budgets"]["b"].items() if key != "skip_layers")
    assert len(keys) == 6
    assert lists > 50


def test_equal_seeds_give_equal_weights_and_literal_ones() -> None:
    a = random_architecture(np.random.default_rng(3))
    first, second = (random_weights(a, np.random.Generator(np.random.PCG64(5))) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert normal(np.random.Generator(np.random.PCG64(0)), (3,)).tolist() == pytest.approx(LITERAL, abs=1e-12)


def test_no_library_of_functions_has_a_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last digit of a logarithm differs by processor and library; here they are off by a thousandth, to be seen."""
    a = random_architecture(np.random.default_rng(3))
    assert "M" in a.pattern
    right = random_weights(a, np.random.Generator(np.random.PCG64(5)))
    for module in (np, math):
        for name in ("log", "log1p", "exp", "expm1"):
            exact = getattr(module, name)
            monkeypatch.setattr(module, name, lambda x, exact=exact: exact(x) * 1.001)
    here = random_weights(a, np.random.Generator(np.random.PCG64(5)))
    assert [name for name in right if not np.array_equal(right[name], here[name])] == []


def test_decay_and_step_are_correctly_rounded() -> None:
    """Against the same formulas in four times the digits of a float."""
    chances = uniform(np.random.default_rng(0), (50,))
    with decimal.localcontext(prec=60):
        for chance, log_a, bias in zip(chances, log_decay(chances), inverse_softplus_of_step(chances), strict=True):
            dt = Decimal("0.001") * Decimal(100) ** Decimal(chance)
            assert log_a == float((1 + 15 * Decimal(chance)).ln())
            assert bias == float((dt.exp() - 1).ln())


#: The first numbers of PCG64 with seed 0: numpy promises the stream, this pins our arithmetic on it.
LITERAL = [1.5899949439435108, 0.6293272985020674, -0.8682190107127253]


def test_the_distributions() -> None:
    rng = np.random.default_rng(0)
    numbers, chances = normal(rng, (200_000,)), uniform(rng, (200_000,))
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.std() - 1) < 0.01
    assert 0 < chances.min() < 1e-4
    assert 1 - 1e-4 < chances.max() < 1
    assert abs(chances.mean() - 0.5) < 0.01


def test_states_decay_as_in_real_models() -> None:
    a = replace(NANO_12B, pattern="M", ffn_sizes=(), mamba_heads=(512,), hidden_size=8, mamba_head_dim=1, vocab_size=8)
    weights = random_weights(a, np.random.default_rng(1))
    rates = np.exp(weights["backbone.layers.0.mixer.A_log"])
    steps = np.logaddexp(0, weights["backbone.layers.0.mixer.dt_bias"].astype(np.float64))
    assert 1 <= rates.min() < rates.max() <= 16.001
    assert 0.99e-3 < steps.min() < 2e-3
    assert 0.05 < steps.max() < 1.01e-1


@pytest.mark.parametrize("seed", range(12))
def test_every_layer_matters(naive_forward: Forward, seed: int) -> None:
    """Deleting any layer, of the parent or of a sub-model, moves the logits by 5 % or more."""
    rng = np.random.default_rng(seed)
    a = random_architecture(rng)
    weights = random_weights(a, rng)
    for b in (Budget.full(a, "full"), random_budget(a, rng)):
        sub = b.architecture(a)
        sliced = {
            str(sub_model_name(name, a, b)): slice_array(weights[name], runs)
            for name, runs in tensor_runs(a, b).items()
        }
        ids = rng.integers(0, a.vocab_size, 16)
        whole = naive_forward(sub, sliced, ids)
        for layer in range(len(sub.pattern)):
            moved = np.linalg.norm(naive_forward(sub, sliced, ids, layer) - whole) / np.linalg.norm(whole)
            assert moved >= 0.05, (b, layer)


def test_states_matter(naive_forward: Forward) -> None:
    """With dt clamped to zero a Mamba layer forgets everything at once: the logits must show it."""
    a = replace(random_architecture(np.random.default_rng(4)), time_step_limit=(0.0, math.inf))
    assert "M" in a.pattern
    weights, ids = random_weights(a, np.random.default_rng(4)), np.arange(24)
    whole, forgetful = (naive_forward(x, weights, ids) for x in (a, replace(a, time_step_limit=(0.0, 0.0))))
    assert np.linalg.norm(whole - forgetful) > 0.05 * np.linalg.norm(whole)


def test_a_12b_checkpoint_of_holes(tmp_path: Path) -> None:
    write_sparse_checkpoint(tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.architecture == NANO_12B
    assert len(checkpoint.shards) == 5
    assert list(checkpoint.budgets) == ["12b", "9b", "6b"]
    sizes = [path.stat() for path in checkpoint.shards]
    assert sum(size.st_size for size in sizes) > 2 * 12_310_001_152
    assert sum(size.st_blocks * 512 for size in sizes) < 1 << 20
    assert not checkpoint.read("lm_head.weight")[-1].any()


def test_any_shape_can_be_made_of_holes(tmp_path: Path) -> None:
    write_sparse_checkpoint(tmp_path, NANO_9B, [Budget.full(NANO_9B, "9b")], shards=1)
    assert Checkpoint.open(tmp_path).architecture.parameters() == 8_888_227_328
