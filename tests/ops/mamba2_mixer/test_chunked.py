"""The chunked scan against the recurrence that it stands for, and the mixer that takes it for long calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elastic_export.ops.mamba2_mixer import chunked, equations
from elastic_export.ops.mamba2_mixer.chunked import CHUNK, chunked_scan
from elastic_export.ops.mamba2_mixer.equations import FEW, stepwise_scan

TOKENS = [1, 2, FEW + 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 3, 200]


def operands(tokens: int, seed: int, *, groups: int = 2, heads: int = 4, dtype: Any = torch.float64) -> list[Tensor]:
    """x, B, C, dt, A, state of two rows, the second of which is padding in its last third."""
    rng = np.random.default_rng(seed)
    dt = rng.uniform(0, rng.choice([1e-3, 0.1, 3.0]), (2, tokens, heads))
    dt[1, tokens - tokens // 3 :] = 0.0
    shapes = [(2, tokens, heads, 3), (2, tokens, groups, 5), (2, tokens, groups, 5)]
    x, B, C = (rng.normal(size=shape) for shape in shapes)
    arrays = (x, B, C, dt, -rng.uniform(1, 16, heads), rng.normal(size=(2, heads, 3, 5)))
    return [torch.from_numpy(array).to(dtype) for array in arrays]


def distance(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> float:
    """The worse of both relative errors."""
    pairs = zip(found, expected, strict=True)
    return max(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in pairs)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(TOKENS), st.integers(1, 3), st.integers(1, 3), st.integers(0, 999))
def test_chunks_are_the_recurrence(tokens: int, groups: int, per_group: int, seed: int) -> None:
    values = operands(tokens, seed, groups=groups, heads=groups * per_group)
    assert distance(chunked_scan(*values), stepwise_scan(*values)) < 1e-10


def test_float32_stays_as_near_as_the_recurrence_does() -> None:
    """Steps of 3 and decays to exp(-16): sums of logarithms reach thousands, whose differences float32 would spoil."""
    for seed in range(9):
        values = operands(200, seed)
        exact, narrow = stepwise_scan(*values), [value.float() for value in values]
        assert distance(chunked_scan(*narrow), exact) < 4e-7


@pytest.mark.parametrize("tokens", [FEW + 1, 150])
def test_steps_of_zero_keep_the_state_bit_for_bit(tokens: int) -> None:
    x, B, C, _, A, state = operands(tokens, 0, dtype=torch.float32)
    _, after = chunked_scan(x, B, C, torch.zeros(2, tokens, 4), A, state)
    assert torch.equal(after, state)


@pytest.mark.parametrize("tokens", [FEW, FEW + 1])
def test_the_mixer_scans_long_calls_in_chunks(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()

    def noting(x: Tensor, *rest: Tensor) -> Any:
        asked.append(x.shape[1])
        return chunked_scan(x, *rest)

    monkeypatch.setattr(equations, "chunked_scan", noting)
    sizes = equations.MixerSizes(1, 2, 3, 1e-5, 0.0, float("inf"))
    parameters = equations.MixerParameters(*(torch.rand(s) for s in [(8, 1, 4), (8,), (1,), (1,), (1,), (2,)]))
    shapes = [(1, tokens, 11), (1, 3, 8), (1, 1, 2, 3)]
    projected, conv, ssm = (torch.rand(shape) for shape in shapes)
    equations.mamba2_mixer(projected, parameters, None, torch.tensor([tokens]), conv, ssm, sizes)
    assert asked == [tokens] * (tokens > FEW)


#: fault -> what stands in `chunked.py`, and what a fault puts there
FAULTS = {
    "a token sees the next one": ("triu(1)", "triu(2)"),
    "a token does not see itself": ("triu(1)", "triu(0)"),
    "nothing enters from before": ("+ entering * seen", ""),
    "the state does not decay": ("entering[:, :, -1:] * state", "state"),
    "the first token does not decay what it finds": (
        "total[..., -1:] - total)",
        "total[..., -1:] - total).roll(1, -1)",
    ),
    "groups alternate": ("repeat_interleave(heads, dim=1) @ state", "repeat(1, heads, 1, 1) @ state"),
    "steps are forgotten": ("(dt[..., None] * x)", "x"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_recurrence_sees_a_wrong_chunk(fault: str) -> None:
    old, new = FAULTS[fault]
    text = Path(chunked.__file__).read_text("utf-8")
    assert text.count(old) == 1
    wrong: dict[str, Any] = {}
    exec(compile(text.replace(old, new), "chunked.py", "exec"), wrong)
    values = operands(2 * CHUNK + 3, 1)
    assert distance(wrong["chunked_scan"](*values), stepwise_scan(*values)) > 1e-6
