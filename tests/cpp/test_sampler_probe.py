"""Python and C++ draw the same ids, for logits of many kinds and settings at their edges."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from elastic_runtime.sampling import Sampler, Sampling
from sampler_probe import Case, ask

V = 131072


def _logits(rng: np.random.Generator) -> np.ndarray:
    """Of any size and spread, as float32, float16 or bfloat16 has them, some of them -inf or equal to others."""
    count = int(rng.choice([1, 2, 3, 17, 256, 264, 1000, 5000]))
    values = rng.normal(size=count) * 10.0 ** rng.uniform(-4, 3) + rng.choice([0.0, -50.0, 3e4])
    if rng.random() < 0.3:
        values[rng.integers(count, size=count // 3)] = values[0]
    if rng.random() < 0.3:
        values[rng.permutation(count)[: count // 2]] = -np.inf
    if rng.random() < 0.2:
        values = np.where(rng.random(count) < 0.5, 0.0, -0.0)
    return values.astype(rng.choice([np.float32, np.float16, ml_dtypes.bfloat16]))


def _settings(rng: np.random.Generator) -> Sampling:
    return Sampling(
        temperature=float(rng.choice([0.0, 1e-300, 1e-3, 0.6, 1.0, 7.5, 1e300])),
        top_k=int(rng.choice([0, 0, 1, 2, 40, 300, 2**63 - 1])),
        top_p=float(rng.choice([1.0, 1.0, 0.95, 0.5, 1e-12, 1 - 2.0**-53])),
        seed=int(rng.integers(2**64, dtype=np.uint64)),
    )


def _ids(case: Case) -> list[int]:
    sampler = Sampler(case.sampling)
    return [sampler.sample(case.logits) for _ in range(case.draws)]


@pytest.fixture(scope="module")
def probe(built: Path) -> Path:
    return next(built.rglob("sampler_probe"))


def test_both_draw_the_same_ids_from_any_logits(probe: Path) -> None:
    rng = np.random.default_rng(16)
    cases = [Case(_logits(rng), _settings(rng), 6) for _ in range(3000)]
    assert sum(len(set(_ids(case))) > 1 for case in cases) > 500  # not all of them are decided before a word is drawn
    for case, answer in zip(cases, ask(probe, cases), strict=True):
        assert answer.ids == _ids(case), (case.sampling, case.logits.size, case.logits.dtype)


@pytest.mark.parametrize("step", [None, 2.0**-4], ids=["float32", "with ties"])
@pytest.mark.parametrize("spread", [0.0, 1.0, 12.0], ids=["equal", "flat", "peaked"])
def test_both_draw_the_same_ids_from_a_large_vocabulary(probe: Path, spread: float, step: float | None) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=V) * spread
    logits = (np.floor(values / step) * step if step else values).astype(np.float32)
    settings = [(0.6, 0, 1.0), (0.7, 0, 0.95), (1.0, 40, 1.0), (1.3, 5000, 0.9), (2.0, 0, 0.999)]
    cases = [Case(logits, Sampling(*each, seed=8), 5) for each in settings]
    assert [answer.ids for answer in ask(probe, cases)] == [_ids(case) for case in cases]
