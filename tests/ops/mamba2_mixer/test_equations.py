"""The mixer against its closed form in float64 numpy: sums over all earlier tokens instead of a recurrence.

y_t = Σ_{j≤t} exp(A·Σ_{j<k≤t} dt_k) · dt_j · (C_t·B_j) · x_j + exp(A·Σ_{k≤t} dt_k) · S_0·C_t + D·x_t
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elastic_export.ops.mamba2_mixer import equations
from elastic_export.ops.mamba2_mixer.equations import MixerParameters, MixerSizes, mamba2_mixer

Array = np.ndarray[Any, Any]


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def one_head(x: Array, B: Array, C: Array, dt: Array, A: float, D: float, S: Array) -> tuple[Array, Array]:
    """x [T,P], B and C [T,N], dt [T], S [P,N] -> y [T,P] and the last state, by the closed form."""
    T = len(dt)
    y = np.zeros_like(x)
    for t in range(T):
        y[t] = math.exp(A * dt[: t + 1].sum()) * (S @ C[t]) + D * x[t]
        for j in range(t + 1):
            y[t] += math.exp(A * dt[j + 1 : t + 1].sum()) * dt[j] * float(C[t] @ B[j]) * x[j]
    last = math.exp(A * dt.sum()) * S
    for j in range(T):
        last = last + math.exp(A * dt[j + 1 :].sum()) * dt[j] * np.outer(x[j], B[j])
    return y, last


def closed_form(
    projected: Array, w: dict[str, Array], mask: Array, conv_state: Array, ssm_state: Array, sizes: MixerSizes
) -> tuple[Array, Array, Array]:
    """One sequence, all tokens real: y [T,di], conv state [K-1,dc], SSM state [H,P,N]."""
    (H, P, N), G, T = ssm_state.shape, sizes.n_groups, len(projected)
    di, gn = H * P, G * N
    z, raw, dt = projected[:, :di], projected[:, di : 2 * di + 2 * gn], projected[:, 2 * di + 2 * gn :]
    window = np.concatenate([conv_state, raw])
    K = len(conv_state) + 1
    conv = np.array([[window[t : t + K, c] @ w["conv_weight"][c, 0] for c in range(raw.shape[1])] for t in range(T)])
    conv = silu(conv + w["conv_bias"])
    dt = np.clip(np.log1p(np.exp(dt + w["dt_bias"])), sizes.time_step_min, sizes.time_step_max)
    y, state = np.zeros((T, di)), np.zeros_like(ssm_state)
    for h in range(H):
        g = h // (H // G)
        x = conv[:, h * P : (h + 1) * P]
        B, C = conv[:, di + g * N : di + (g + 1) * N], conv[:, di + gn + g * N : di + gn + (g + 1) * N]
        a = -math.exp(w["A_log"][h])
        y[:, h * P : (h + 1) * P], state[h] = one_head(x, B, C, dt[:, h], a, float(w["D"][h]), ssm_state[h])
    gated = y * silu(z) * mask
    for g in range(G):
        part = slice(g * di // G, (g + 1) * di // G)
        mean = (gated[:, part] ** 2).sum(axis=1, keepdims=True) / mask[part].sum()
        gated[:, part] = gated[:, part] / np.sqrt(mean + sizes.epsilon)
    return gated * w["norm_weight"], window[T:], state


@st.composite
def cases(draw: st.DrawFn) -> tuple[MixerSizes, int, int, int, int]:
    """Sizes, heads, K, T, seed."""
    groups, limits = draw(st.integers(1, 3)), draw(st.sampled_from([(0.0, math.inf), (0.01, 0.05), (0.0, 0.02)]))
    sizes = MixerSizes(groups, draw(st.integers(1, 5)), draw(st.integers(1, 6)), 1e-5, *limits)
    return (
        sizes,
        groups * draw(st.integers(1, 3)),
        draw(st.integers(2, 4)),
        draw(st.integers(1, 9)),
        draw(st.integers(0, 999)),
    )


def random_inputs(sizes: MixerSizes, H: int, K: int, T: int, seed: int, batch: int) -> dict[str, Array]:
    rng, di = np.random.default_rng(seed), H * sizes.head_dim
    dc = di + 2 * sizes.n_groups * sizes.state_size
    keep = rng.random(di) < 0.7
    keep.reshape(sizes.n_groups, -1)[:, 0] = True
    return {
        "projected": rng.normal(size=(batch, T, di + dc + H)),
        "conv_weight": rng.normal(size=(dc, 1, K)),
        "conv_bias": rng.normal(size=dc),
        "A_log": np.log(rng.uniform(1, 16, H)),
        "D": rng.normal(size=H),
        "dt_bias": rng.uniform(-6, 1, H),
        "norm_weight": rng.normal(1, 0.2, di),
        "mask": keep.astype(float),
        "conv_state": rng.normal(size=(batch, K - 1, dc)),
        "ssm_state": rng.normal(size=(batch, H, sizes.head_dim, sizes.state_size)),
    }


def mixer(v: dict[str, Array], length: list[int], sizes: MixerSizes) -> tuple[Array, Array, Array]:
    t = {name: torch.from_numpy(array) for name, array in v.items()}
    parameters = MixerParameters(*(t[name] for name in MixerParameters._fields))
    out = mamba2_mixer(
        t["projected"], parameters, t["mask"], torch.tensor(length), t["conv_state"], t["ssm_state"], sizes
    )
    y, conv, ssm = (o.numpy() for o in out)
    return y, conv, ssm


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cases())
def test_mixer_is_its_closed_form(case: tuple[MixerSizes, int, int, int, int]) -> None:
    sizes, _, _, T, _ = case
    v = random_inputs(*case, batch=2)
    lengths = [T, (T + 1) // 2]
    found = mixer(v, lengths, sizes)
    for row, length in enumerate(lengths):
        expected = closed_form(
            v["projected"][row, :length], v, v["mask"], v["conv_state"][row], v["ssm_state"][row], sizes
        )
        for mine, theirs in zip(found, expected, strict=True):
            real = mine[row, :length] if mine is found[0] else mine[row]
            np.testing.assert_allclose(real, theirs, rtol=1e-9, atol=1e-12)


def test_softplus_is_the_identity_above_20() -> None:
    """softplus(s) = s for s > 20, by definition: the last bit matters to nobody, an overflow would."""
    sizes = MixerSizes(1, 1, 1, 1e-5, 0.0, math.inf)
    v = random_inputs(sizes, 1, 2, 1, 0, batch=1)
    v["dt_bias"][:] = 800.0
    y, _, ssm = mixer(v, [1], sizes)
    assert np.isfinite(y).all()
    assert np.isfinite(ssm).all()


def test_length_zero_keeps_both_states_bit_for_bit() -> None:
    sizes = MixerSizes(2, 3, 4, 1e-5, 0.01, 0.5)  # a lower limit above zero must not let padding move the state
    v = random_inputs(sizes, 4, 4, 5, 1, batch=2)
    _, conv, ssm = mixer(v, [0, 2], sizes)
    assert conv[0].tobytes() == v["conv_state"][0].tobytes()
    assert ssm[0].tobytes() == v["ssm_state"][0].tobytes()
    assert ssm[1].tobytes() != v["ssm_state"][1].tobytes()


Mutation = Callable[..., Any]


def _swap_b_and_c(xBC: Tensor, dt: Tensor, parameters: MixerParameters, state: Tensor, sizes: MixerSizes) -> Any:
    di, gn = dt.shape[-1] * sizes.head_dim, sizes.n_groups * sizes.state_size
    x, B, C = torch.split(xBC, [di, gn, gn], dim=-1)
    return equations._scan(torch.cat([x, C, B], -1), dt, parameters, state, sizes)


def _forget_d(xBC: Tensor, dt: Tensor, parameters: MixerParameters, state: Tensor, sizes: MixerSizes) -> Any:
    return equations._scan(xBC, dt, parameters._replace(D=torch.zeros_like(parameters.D)), state, sizes)


def _one_group(y: Tensor, z: Tensor, mask: Tensor, weight: Tensor, sizes: MixerSizes) -> Any:
    return equations._gated_group_norm(y, z, mask, weight, replace(sizes, n_groups=1))


def _count_masked(y: Tensor, z: Tensor, mask: Tensor, weight: Tensor, sizes: MixerSizes) -> Any:
    return equations._gated_group_norm(y * mask, z, None, weight, sizes)


def _no_clamp(dt: Tensor, bias: Tensor, valid: Tensor, sizes: MixerSizes) -> Any:
    return equations._time_step(dt, bias, valid, replace(sizes, time_step_min=0.0, time_step_max=math.inf))


def _late_state(xBC: Tensor, length: Tensor, conv_state: Tensor) -> Any:
    return equations._advance_conv_state(xBC, (length - 1).clamp(min=0), conv_state)


def _no_padding(dt: Tensor, bias: Tensor, valid: Tensor, sizes: MixerSizes) -> Any:
    return equations._time_step(dt, bias, torch.ones_like(valid), sizes)


def _no_conv_bias(xBC: Tensor, parameters: MixerParameters, conv_state: Tensor) -> Any:
    return equations._causal_conv(xBC, parameters._replace(conv_bias=0 * parameters.conv_bias), conv_state)


#: fault -> (function of the mixer, its faulty stand-in, the output that must show it: 0 y, 1 conv state, 2 SSM state)
MUTATIONS: dict[str, tuple[str, Mutation, int]] = {
    "swap B and C": ("_scan", _swap_b_and_c, 0),
    "forget the D skip": ("_scan", _forget_d, 0),
    "norm over all groups": ("_gated_group_norm", _one_group, 0),
    "count masked channels in the norm": ("_gated_group_norm", _count_masked, 0),
    "forget the clamp": ("_time_step", _no_clamp, 2),
    "length off by one": ("_advance_conv_state", _late_state, 1),
    "padding moves the state": ("_time_step", _no_padding, 2),
    "forget the conv bias": ("_causal_conv", _no_conv_bias, 0),
}


@pytest.mark.parametrize("fault", MUTATIONS)
def test_closed_form_sees_a_wrong_mixer(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison bites: with one fault in the mixer, the output that the fault touches is far off."""
    name, mutation, output = MUTATIONS[fault]
    sizes = MixerSizes(2, 3, 4, 1e-5, 0.05, 0.1)
    v = random_inputs(sizes, 4, 3, 6, 5, batch=1)
    expected = closed_form(v["projected"][0, :4], v, v["mask"], v["conv_state"][0], v["ssm_state"][0], sizes)[output]
    original = getattr(equations, name)

    def faulty(*args: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(equations, name, original)
            return mutation(*args)

    def error() -> float:
        found = mixer(v, [4], sizes)[output][0]
        found = found[:4] if output == 0 else found
        return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))

    assert error() < 1e-12
    monkeypatch.setattr(equations, name, faulty)
    assert error() > 1e-2
