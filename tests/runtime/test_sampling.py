"""Sampling: equal to the golden ids that C++ is held to as well, exact where exactness is promised, plain errors."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.sketch import splitmix64
from elastic_runtime.sampling import Sampler, Sampling, _Scratch, _weights, exact_exp

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "sampler.json").read_text("utf-8"))["groups"]


def _logits(group: dict[str, Any], draw: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    words = splitmix64(group["seed"], draw * group["count"], group["count"]) >> np.uint64(11)
    values = (words.astype(np.float64) * 2.0**-53 - 0.5) * group["scale"]
    return (np.floor(values / group["step"]) * group["step"]).astype(np.float32)


@pytest.mark.parametrize("group", GOLDEN, ids=lambda group: f"{group['count']} logits, seed {group['seed']}")
def test_draws_the_golden_ids(group: dict[str, Any]) -> None:
    for case in group["cases"]:
        sampler = Sampler(Sampling(case["temperature"], case["top_k"], case["top_p"], case["seed"]))
        ids = [sampler.sample(_logits(group, draw)) for draw in range(len(case["ids"]))]
        assert ids == case["ids"], case


def test_the_golden_file_is_not_all_greedy() -> None:
    assert all(len({tuple(case["ids"]) for case in group["cases"]}) > 4 for group in GOLDEN[:3])


@given(st.floats(-708, 0))
def test_the_exponential_is_within_two_units_in_the_last_place(x: float) -> None:
    assert abs(float(exact_exp(np.array([x]))[0]) - math.exp(x)) <= 2 * math.ulp(math.exp(x))


def test_the_exponential_of_very_negative_numbers_is_zero() -> None:
    assert exact_exp(np.array([-708.5, -1e300, -math.inf])).tolist() == [0, 0, 0]


def test_equal_logits_give_the_lowest_id_first() -> None:
    logits = np.array([1, 3, 3, 2], np.float32)
    assert Sampler(Sampling()).sample(logits) == 1
    assert Sampler(Sampling(1.0, top_k=1)).sample(logits) == 1


def test_frequencies_follow_the_softmax() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    sampler = Sampler(Sampling(1.0, seed=3))
    counts = Counter(sampler.sample(logits) for _ in range(4000))
    assert [counts[i] / 4000 for i in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_logits_of_16_bits_are_drawn_from_as_their_float32s(dtype: Any) -> None:
    logits = np.random.default_rng(1).normal(size=300).astype(dtype)
    narrow, wide = Sampler(Sampling(2.0, 50, 0.9, 4)), Sampler(Sampling(2.0, 50, 0.9, 4))
    assert [narrow.sample(logits) for _ in range(20)] == [wide.sample(logits.astype(np.float32)) for _ in range(20)]


def test_of_equal_logits_at_the_edge_the_lowest_ids_stay() -> None:
    logits = np.array([1, 0, 1, 2, 1, 0, 1], np.float32)
    for settings in (Sampling(9.0, top_k=3), Sampling(1e9, top_p=0.42)):  # three of seven weigh 0.43 of all
        sampler = Sampler(settings)
        assert {sampler.sample(logits) for _ in range(60)} == {0, 2, 3}


def test_what_weighs_nothing_is_never_drawn_and_what_weighs_least_may_be() -> None:
    logits = np.zeros(131072, np.float32)
    logits[1:] = -25.0  # half a unit of 2^-36 and more: exp(-25.0) * 2^36 = 0.95
    drawn = [Sampler(Sampling(1.0, seed=seed)).sample(logits) for seed in range(20)]
    assert drawn == [0] * 20
    weights = _weights(_Scratch(2), logits, np.array([0, 1]), 0.0, 1.0)
    assert weights.tolist() == [2.0**36, 1.0]
    assert _weights(_Scratch(2), logits, np.array([0, 1]), 0.0, 0.97).tolist() == [2.0**36, 0.0]


def test_shorter_logits_after_longer_ones_are_drawn_from_alone() -> None:
    logits = np.random.default_rng(2).normal(size=500).astype(np.float32)
    sampler, other = Sampler(Sampling(1.0, 0, 0.9, 3)), Sampler(Sampling(1.0, 0, 0.9, 3))
    sampler.sample(logits), other.sample(logits[:9])
    assert [sampler.sample(logits[:9]) for _ in range(20)] == [other.sample(logits[:9]) for _ in range(20)]


def test_masked_logits_are_never_drawn() -> None:
    logits = np.array([-np.inf, 0, -np.inf, 0], np.float32)
    sampler = Sampler(Sampling(5.0))
    assert {sampler.sample(logits) for _ in range(50)} == {1, 3}


def test_no_limit_and_one_beyond_the_vocabulary_are_none() -> None:
    logits = np.random.default_rng(0).normal(size=50).astype(np.float32)
    samplers = [Sampler(Sampling(9.0, top_k=k)) for k in (0, 50, 51, 2**63 - 1)]
    drawn = [[sampler.sample(logits) for _ in range(40)] for sampler in samplers]
    assert drawn == [drawn[0]] * 4
    assert len(set(drawn[0])) > 10


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint64])
def test_numpys_integers_are_seeds(kind: Any) -> None:
    logits, most = np.zeros(32, np.float32), int(np.iinfo(kind).max)
    ours, its = (Sampling(1.0, seed=seed) for seed in (most, kind(most)))
    for row in (0, 1):  # beyond the largest of them, too
        assert Sampler(its.row(row)).sample(logits) == Sampler(ours.row(row)).sample(logits)
    assert Sampler(its).sample(logits) == Sampler(ours).sample(logits)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_numpys_floats_are_taken_as_the_doubles_that_they_are(kind: Any) -> None:
    logits = np.random.default_rng(4).normal(size=500).astype(np.float32)
    for seed in range(20):
        ours = Sampling(float(kind(0.7)), 0, float(kind(0.9)), seed)
        its = Sampling(kind(0.7), 0, kind(0.9), seed)
        assert Sampler(its).sample(logits) == Sampler(ours).sample(logits)


def test_rows_of_a_batch_draw_with_their_own_seed() -> None:
    assert Sampling(seed=2**64 - 1).row(2).seed == 1


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"temperature": -1.0},
            "temperature: expected a number from 0, found -1.0. Give 0 for the likeliest token, or such as 0.7.",
        ),
        (
            {"temperature": math.nan},
            "temperature: expected a number from 0, found nan. Give 0 for the likeliest token, or such as 0.7.",
        ),
        (
            {"temperature": math.inf},
            "temperature: expected a number from 0, found inf. Give 0 for the likeliest token, or such as 0.7.",
        ),
        (
            {"temperature": "hot"},
            "temperature: expected a number from 0, found hot. Give 0 for the likeliest token, or such as 0.7.",
        ),
        (
            {"temperature": True},
            "temperature: expected a number from 0, found True. Give 0 for the likeliest token, or such as 0.7.",
        ),
        (
            {"temperature": 10**400},
            f"temperature: expected a number from 0, found {10**56}.... "
            "Give 0 for the likeliest token, or such as 0.7.",
        ),
        ({"top_k": -1}, "top_k: expected 0 (no limit) or more, found -1. Give 0, or such as 40."),
        ({"top_k": math.nan}, "top_k: expected 0 (no limit) or more, found nan. Give 0, or such as 40."),
        ({"top_k": 1.5}, "top_k: expected 0 (no limit) or more, found 1.5. Give 0, or such as 40."),
        ({"top_k": 2**63}, f"top_k: expected at most {2**63 - 1}, found {2**63}. Give 0 for no limit."),
        (
            {"top_p": math.nan},
            "top_p: expected a number above 0, up to 1, found nan. Give 1 for no limit, or such as 0.95.",
        ),
        ({"top_p": 0.0}, "top_p: expected a number above 0, up to 1, found 0.0. Give 1 for no limit, or such as 0.95."),
        ({"top_p": 1.5}, "top_p: expected a number above 0, up to 1, found 1.5. Give 1 for no limit, or such as 0.95."),
        ({"seed": -1}, "seed: expected 0 to 2^64 - 1, found -1. Give another."),
        ({"seed": 0.5}, "seed: expected 0 to 2^64 - 1, found 0.5. Give another."),
        ({"seed": 2**64}, f"seed: expected 0 to 2^64 - 1, found {2**64}. Give another."),
    ],
)
def test_refuses_settings(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        Sampling(**settings)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("logits", "found"),
    [
        ([0, math.nan], "nan at id 1"),
        ([math.inf, 0], "inf at id 0"),
        ([-math.inf, -math.inf], "not one"),
        ([], "not one"),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_refuses_logits(logits: list[float], found: str, temperature: float) -> None:
    with pytest.raises(BuildError) as caught:
        Sampler(Sampling(temperature)).sample(np.array(logits, np.float32))
    assert str(caught.value) == f"logits: expected finite numbers, found {found}. Verify the bundle."
