"""The attention kernels on the host shim against float64: address sanitizer on, fibers shuffled, unwritten rows NaN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cached_attention.testing.cases import (
    Case,
    Data,
    Result,
    errors,
    expected,
    head_errors,
    long_cases,
    make_data,
    matrix,
    tolerances,
)
from cached_attention.testing.runner import run_case
from numpy.typing import NDArray

MATRIX, LONG = matrix(), long_cases()
#: Cases as large as these take seconds.
SLOW = ("4000 rows, T=65", "131071 rows")


@pytest.mark.parametrize("name", MATRIX)
def test_matrix(name: str, attention_run: Callable[[Case], tuple[Data, Result]]) -> None:
    case = MATRIX[name]
    found, bounds = errors(case, *attention_run(case)), tolerances(case)
    assert {name: error for name, error in found.items() if not error <= bounds[name]} == {}


def torch_attention(case: Case, data: Data) -> list[NDArray]:
    """y of torch's attention in the case's dtype, of one call, over the same caches."""
    torch = pytest.importorskip("torch")
    caches = expected(case, data)
    seen = int(data.position[0][0]) + case.calls[0]
    dtype = getattr(torch, case.dtype)

    def tensor(values: NDArray) -> object:
        return torch.from_numpy(values.astype(np.float32)).to(dtype)

    query = tensor(data.query[0].reshape(1, case.calls[0], case.heads, case.head_dim)).transpose(1, 2)
    keys, values = (tensor(cache[:, :, :seen]) for cache in (caches.key_cache, caches.value_cache))
    visible = torch.ones(case.calls[0], seen, dtype=torch.bool).tril(seen - case.calls[0])
    y = torch.nn.functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=visible, scale=case.factor, enable_gqa=True
    )
    return [y.transpose(1, 2).reshape(1, case.calls[0], -1).double().numpy()]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in LONG])
def test_error_is_at_most_twice_that_of_torchs_attention(
    name: str, dtype: str, attention_cases: Path, tmp_path: Path
) -> None:
    case = replace(LONG[name], dtype=dtype)
    data, result = run_case([str(attention_cases)], case, tmp_path)
    wanted = expected(case, data).y
    ours, theirs = head_errors(case, result.y, wanted), head_errors(case, torch_attention(case, data), wanted)
    print(f"{name}, {dtype}: {ours:.3g}, torch {theirs:.3g}")
    assert ours <= 2 * theirs


def test_reference_is_the_products_op() -> None:
    """Float64 numpy here and the PyTorch op of the exporter, written apart, agree."""
    torch = pytest.importorskip("torch")
    op = pytest.importorskip("elastic_export.ops.cached_attention.torch_op").cached_attention
    case = Case(calls=(7,), start=(9, 0), head_dim=16)  # whose scale, 1/4, is the same in every type
    data, caches = make_data(case), []
    wanted = expected(case, data)
    for cache in (data.key_cache, data.value_cache):
        caches.append(torch.from_numpy(np.nan_to_num(cache.astype(np.float64))))
    given = [torch.from_numpy(tensors[0].astype(np.float64)) for tensors in (data.query, data.key, data.value)]
    sizes = (case.heads, case.groups, case.head_dim, case.factor)
    y, keys, values = op(*given, *caches, torch.from_numpy(data.position[0]), *sizes)
    np.testing.assert_allclose(y, wanted.y[0], rtol=1e-9, atol=1e-12)
    for found, cache in ((keys, wanted.key_cache), (values, wanted.value_cache)):
        np.testing.assert_array_equal(found, np.nan_to_num(cache.astype(np.float64)))


def with_position(data: Data, *position: int) -> Data:
    return replace(data, position=[np.array(position, np.int64)])


def test_positions_outside_touch_no_row_outside(attention_cases: Path, tmp_path: Path) -> None:
    """Below zero, past the end, and where a sum of 32 bits would wrap round; the caches are exactly as long."""
    case = replace(MATRIX["T=17"], start=(0,) * 4, spare=0)
    data = make_data(case)
    for wild in ((-3, -(2**40), -17, -(2**63)), (case.context, 2**40, 2**31 - 1, 2**63 - 1), (-1, 1, 2, 3)):
        for kernel in ("prefill", "decode"):
            asked = replace(case, kernel=kernel)
            _, found = run_case([str(attention_cases)], asked, tmp_path, with_position(data, *wild))
            for b, position in enumerate(wild):
                rows = {position + t: t for t in range(17) if 0 <= position + t < case.context}
                for name in ("key", "value"):
                    cache, new = getattr(found, f"{name}_cache")[b, 0], getattr(data, name)[0][b]
                    untouched = [row for row in range(case.context) if row not in rows]
                    assert np.isnan(cache[untouched]).all()
                    np.testing.assert_array_equal(cache[list(rows)], new[list(rows.values())])


def test_how_a_prompt_is_cut_does_not_matter(attention_cases: Path, tmp_path: Path) -> None:
    whole = Case(calls=(67,), start=(0,), groups=1, heads_per_group=2, spare=0)
    data = make_data(whole)
    results = [run_case([str(attention_cases)], whole, tmp_path, data)[1]]
    for cut in ((64, 3), (1,) * 3 + (64,), (33, 1, 33)):
        case, edges = replace(whole, calls=cut), np.cumsum(cut)[:-1]
        parts = {name: np.split(getattr(data, name)[0], edges, axis=1) for name in ("query", "key", "value")}
        pieces = replace(data, position=[case.position(i) for i in range(len(cut))], **parts)
        results.append(run_case([str(attention_cases)], case, tmp_path, pieces)[1])
    for other in results[1:]:
        np.testing.assert_array_equal(other.key_cache, results[0].key_cache)
        y = np.concatenate(other.y, axis=1).astype(np.float64)
        np.testing.assert_allclose(y, results[0].y[0].astype(np.float64), rtol=0, atol=2e-3)


def test_order_of_threads_does_not_change_a_bit(attention_cases: Path, tmp_path: Path) -> None:
    for name in ("prefill base", "decode base"):
        orders = (("forward", 0), ("reversed", 0), ("random", 1), ("random", 2))
        data, seen = make_data(MATRIX[name]), set()
        for order, seed in orders:
            case = replace(MATRIX[name], order=order, seed=seed)
            seen.add(run_case([str(attention_cases)], case, tmp_path, data)[1].y[0].tobytes())
        assert len(seen) == 1


def test_nan_is_not_hidden_and_stays_in_its_head(attention_cases: Path, tmp_path: Path) -> None:
    for name in ("prefill base", "decode base"):
        case = MATRIX[name]
        data = make_data(case)
        data.query[0][0, -1, 0] = np.nan
        y = run_case([str(attention_cases)], case, tmp_path, data)[1].y[0].reshape(-1, case.heads, case.head_dim)
        last = case.calls[0] - 1
        assert np.isnan(y[last, 0]).all()
        assert np.isfinite(np.delete(y.reshape(-1, case.head_dim), last * case.heads, axis=0)).all()


@pytest.mark.parametrize("form", ["decode", "prefill"])
@pytest.mark.parametrize("multiprocessors", [1, 64])
def test_a_row_of_scores_of_minus_infinity_is_zero(
    form: str, multiprocessors: int, attention_cases: Path, tmp_path: Path
) -> None:
    """With parts to merge, and without."""
    case = replace(MATRIX[f"{form} splits of scores of minus infinity"], multiprocessors=multiprocessors)
    data = make_data(case)
    for keys in (data.key_cache, data.key[0].reshape(case.batch, -1, case.groups, case.head_dim)):
        keys[..., 0] = -np.inf
    y = run_case([str(attention_cases)], case, tmp_path, data)[1].y[0]
    np.testing.assert_array_equal(y, np.zeros_like(y))


def test_measures_bite() -> None:
    """A 1 % error, a NaN and a wrong bit of a cache each fail the bounds."""
    case = Case(calls=(3,))
    data = make_data(case)
    exact = expected(case, data)
    good = Result([y.astype(np.float16) for y in exact.y], exact.key_cache, exact.value_cache)
    assert all(error <= tolerances(case)[name] for name, error in errors(case, data, good).items())
    flipped = good.key_cache.copy()
    flipped[0, 0, 0, 0] += np.float16(0.001)
    broken = {
        "y": replace(good, y=[good.y[0] * np.float16(1.01)]),
        "key_cache": replace(good, key_cache=flipped),
        "value_cache": replace(good, value_cache=good.key_cache),
    }
    for name, result in broken.items():
        assert errors(case, data, result)[name] > tolerances(case)[name], name
    hole = replace(good, y=[np.where(np.arange(good.y[0].size).reshape(good.y[0].shape) == 7, np.nan, good.y[0])])
    assert errors(case, data, hole)["y"] == np.inf
