"""The kernels on the host shim against float64, tolerances from the contract: address sanitizer on, fibers shuffled."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mamba2_mixer import reference
from mamba2_mixer.testing.cases import (
    Case,
    Data,
    Result,
    errors,
    expected,
    make_data,
    matrix,
    relative_rms,
    tolerances,
)
from mamba2_mixer.testing.runner import CaseError, run_case

MATRIX = matrix()
#: Each in its own way, to the same bounds.
ON_TENSOR_CORES = ["chunk_prefill", "chunk_prefill_resident"]


def check(case: Case, runner: Path, folder: Path) -> None:
    data, result = run_case([str(runner)], case, folder)
    found, bounds = errors(case, data, result), tolerances(case)
    assert {name: error for name, error in found.items() if not error <= bounds[name]} == {}


@pytest.mark.parametrize("name", MATRIX)
def test_matrix(name: str, case_runner: Path, tmp_path: Path) -> None:
    check(MATRIX[name], case_runner, tmp_path)


@pytest.mark.parametrize("decay", ["typical", *(pytest.param(d, marks=pytest.mark.slow) for d in ("tiny", "large"))])
def test_4096_steps(decay: str, case_runner: Path, tmp_path: Path) -> None:
    steps = Case(calls=((1,),) * 4096, groups=1, head_dim=16, state_size=32, decay=decay)  # type: ignore[arg-type]
    check(steps, case_runner, tmp_path)


def test_how_a_prompt_is_cut_does_not_matter(case_runner: Path, tmp_path: Path) -> None:
    whole = Case(calls=((9,),))
    data = make_data(whole)
    results = []
    for cut in (((9,),), ((4,), (5,)), ((1,),) * 9):
        case, start = replace(whole, calls=cut), 0
        parts = []
        for (length,) in cut:
            parts.append(data.projected[0][:, start : start + length])
            start += length
        pieces = replace(data, projected=parts, length=[np.array(c, np.int64) for c in cut])
        results.append(_run(case, pieces, case_runner, tmp_path))
    for other in results[1:]:
        # One order of arithmetic in both kernels, but for the sum over the state.
        np.testing.assert_allclose(other.ssm_state, results[0].ssm_state, rtol=0, atol=1e-6)
        np.testing.assert_allclose(np.concatenate(other.y, 1), results[0].y[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("kernel", ON_TENSOR_CORES)
def test_a_call_from_the_state_of_another_is_one_long_call(kernel: str, case_runner: Path, tmp_path: Path) -> None:
    """On tensor cores, where a cut moves the chunks: each way is within the contract's bounds of float64."""
    whole = Case(calls=((130,),), kernel=kernel)
    data = make_data(whole)
    wanted, bounds = expected(whole, data), tolerances(whole)
    for cut in ((130,), (64, 66), (65, 65), (100, 30), (1, 63, 2, 64)):
        case, starts = replace(whole, calls=tuple((n,) for n in cut)), np.cumsum([0, *cut])
        parts = [data.projected[0][:, a:b] for a, b in itertools.pairwise(starts)]
        lengths = [np.array([n], np.int64) for n in cut]
        found = _run(case, replace(data, projected=parts, length=lengths), case_runner, tmp_path)
        shape = (-1, whole.heads, whole.head_dim)
        y, exact = (np.concatenate(t, 1).astype(np.float64).reshape(shape) for t in (found.y, wanted.y))
        assert relative_rms(y, exact, (0, 2)).max() <= bounds["y"], cut
        state = relative_rms(found.ssm_state.astype(np.float64), wanted.ssm_state, (0, 2, 3)).max()
        assert state <= bounds["ssm_state_out"], cut
        np.testing.assert_array_equal(found.conv_state, wanted.conv_state.astype(np.float32))


def _run(case: Case, data: Data, runner: Path, folder: Path) -> Result:
    return run_case([str(runner)], case, folder, data)[1]


@pytest.mark.parametrize("kernel", ON_TENSOR_CORES)
@pytest.mark.parametrize("seed", range(4))
def test_large_decays_on_tensor_cores_lose_what_rounded_operands_lose(
    seed: int, kernel: str, case_runner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dt of 60 a token's y is its own D x + dt (C . B) x, and where C . B cancels it is as wrong as B and C are.

    So the float64 scan of x, B and C in float16 is the measure: whoever keeps them in two bytes does no better.
    """
    case = replace(MATRIX["chunks large decay"], kernel=kernel, seed=seed)
    data, found = run_case([str(case_runner)], case, tmp_path)
    exact = reference.causal_conv
    monkeypatch.setattr(
        reference, "causal_conv", lambda p, window: exact(p, window).astype(np.float16).astype(np.float64)
    )
    rounded = expected(case, data)
    monkeypatch.undo()
    inevitable = replace(found, y=rounded.y)
    assert errors(case, data, found)["y"] <= 1.3 * errors(case, data, inevitable)["y"]


@pytest.mark.parametrize("kernel", ON_TENSOR_CORES)
def test_a_large_state_dies_out_under_tokens_of_nothing(kernel: str, case_runner: Path, tmp_path: Path) -> None:
    """The old state's unit over the next one's is beyond float32, and the decay is zero."""
    case = Case(calls=((70,),), kernel=kernel, decay="large")
    data = make_data(case)
    parameters = {**data.parameters, "conv_bias": np.zeros_like(data.parameters["conv_bias"])}
    data.projected[0][..., case.inner : -case.heads] = 0
    quiet = replace(
        data,
        parameters=parameters,
        conv_state=np.zeros_like(data.conv_state),
        ssm_state=data.ssm_state * np.float32(1e10),
    )
    found = _run(case, quiet, case_runner, tmp_path)
    assert not found.ssm_state.any()
    assert not found.y[0].any()


def test_order_of_threads_does_not_change_a_bit(case_runner: Path, tmp_path: Path) -> None:
    chunks = [(((66, 9),), kernel) for kernel in ON_TENSOR_CORES]
    for calls, kernel in (((1, 1),), "auto"), (((17, 9),), "auto"), *chunks:
        seen = {
            b"".join(t.tobytes() for t in (*(y[r, :n] for y in res.y for r, n in enumerate(calls[0])), res.ssm_state))
            for order, seed in (("forward", 0), ("reversed", 0), ("random", 1), ("random", 2))
            for res in [
                run_case(
                    [
                        str(case_runner),
                    ],
                    replace(Case(calls=calls, kernel=kernel), order=order),
                    tmp_path,
                )[1]
            ]
            if seed >= 0
        }
        assert len(seen) == 1


def test_lengths_outside_the_call_are_read_as_its_ends(case_runner: Path, tmp_path: Path) -> None:
    case = Case(calls=((5, 0),))
    data, wanted = run_case([str(case_runner)], case, tmp_path)
    wild = replace(data, length=[np.array([2**40, -3], np.int64)])
    found = _run(case, wild, case_runner, tmp_path)
    np.testing.assert_array_equal(found.ssm_state, wanted.ssm_state)
    np.testing.assert_array_equal(found.y[0][0], wanted.y[0][0])


def test_nan_in_a_real_token_is_not_hidden(case_runner: Path, tmp_path: Path) -> None:
    chunks = [(((66,),), kernel) for kernel in ON_TENSOR_CORES]
    for calls, kernel in (((1,),), "auto"), (((4,),), "auto"), *chunks:
        case = Case(calls=calls, kernel=kernel)
        data = make_data(case)
        data.projected[0][0, -1, -1] = np.nan  # dt of the last head
        found = _run(case, data, case_runner, tmp_path)
        assert np.isnan(found.ssm_state[0, -1]).all()
        assert np.isfinite(found.ssm_state[0, :-1]).all()


@pytest.mark.parametrize(
    ("kernel", "part"), [("scan_prefill", 1), ("chunk_prefill", 32), ("chunk_prefill_resident", 16)]
)
def test_what_is_not_finite_stays_in_its_part(kernel: str, part: int, case_runner: Path, tmp_path: Path) -> None:
    """Of x, as README says; what else a token has reaches none before it."""
    case, token = Case(calls=((66,),), kernel=kernel), 62
    clean = _run(case, make_data(case), case_runner, tmp_path).y[0][0]
    x, b, c, dt = np.cumsum([case.inner, case.inner, case.groups * case.state_size, case.groups * case.state_size])
    for column, first in ((0, token), (x, token - token % part), (b, token), (c, token), (dt, token)):
        for value in np.nan, np.inf:
            data = make_data(case)
            data.projected[0][0, token, column] = value
            y = _run(case, data, case_runner, tmp_path).y[0][0]
            np.testing.assert_array_equal(y[:first], clean[:first])
            assert not np.isfinite(y[token]).all()


def test_refusals_reach_the_caller(case_runner: Path, tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"kernel decode_step: expected 1 token, .* found 2, 4, 128 and 40"):
        run_case([str(case_runner)], Case(calls=((2,),), kernel="decode_step"), tmp_path)


def test_measures_bite(case_runner: Path, tmp_path: Path) -> None:
    """A 1 % error, a NaN, a swapped state and a touched idle row each fail the bounds."""
    case = Case(calls=((3, 0),))
    data, good = run_case([str(case_runner)], case, tmp_path)
    broken = {
        "y": replace(good, y=[good.y[0] * 1.01]),
        "ssm_state_out": replace(good, ssm_state=good.ssm_state[:, ::-1]),
        "conv_state_out": replace(good, conv_state=good.conv_state[:, ::-1]),
        "kept": replace(good, ssm_state=good.ssm_state * np.array([1, 1 + 2e-7], np.float32)[:, None, None, None]),
    }
    for name, result in broken.items():
        assert errors(case, data, result)[name] > tolerances(case)[name], name
    hole = replace(good, y=[np.where(np.arange(good.y[0].size).reshape(good.y[0].shape) == 7, np.nan, good.y[0])])
    assert errors(case, data, hole)["y"] == np.inf
