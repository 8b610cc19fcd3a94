from __future__ import annotations

import numpy as np
import pytest

from elastic_runtime.errors import InputError
from elastic_runtime.format.sketch import SEED, SIZE, relative_error, sketch, splitmix64, written_rows


def test_the_generator_is_splitmix64() -> None:
    # The first outputs for seed 1234567, as in the reference C of Vigna (prng.di.unimi.it/splitmix64.c).
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(1234567, 0, 5).tolist() == expected
    assert splitmix64(1234567, 3, 2).tolist() == expected[3:]


def test_the_sketch_is_the_loop_of_the_docstring() -> None:
    values = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)
    sums, mask = [0.0] * 64, 2**64 - 1
    for i, x in enumerate(values.ravel().tolist()):
        z = (9 + (i + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
        sums[z >> 58] += x if z % 2 == 0 else -x
    result = sketch(values, seed=9)
    np.testing.assert_allclose(result[:-1], sums, rtol=1e-14, atol=1e-14)
    assert result[-1] == pytest.approx(float(np.linalg.norm(values.astype(np.float64))), rel=1e-14)


def test_long_tensors_are_sketched_as_in_one_piece() -> None:
    values = np.random.default_rng(0).standard_normal(600_000)
    pieces = sum(sketch(np.where(np.arange(600_000) // 200_000 == part, values, 0.0))[:-1] for part in range(3))
    np.testing.assert_allclose(sketch(values)[:-1], pieces, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["dense", "sparse", "one", "scaled", "constant"])
def test_the_estimate_is_near_the_error(kind: str) -> None:
    """A random projection: rarely, a few values cancel in a bucket, so the claim is about nearly all tensors."""
    ratios = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        size, scale = int(rng.integers(1, 5000)), 10.0 ** rng.uniform(-7, 1)
        reference = rng.standard_normal(size)
        change = {
            "dense": rng.standard_normal(size),
            "sparse": rng.standard_normal(size) * (rng.random(size) < 0.01),
            "one": (np.arange(size) == size // 2) * 1.0,
            "scaled": reference,
            "constant": np.ones(size),
        }[kind]
        true = float(np.linalg.norm(scale * change) / np.linalg.norm(reference))
        estimate = relative_error(sketch(reference + scale * change), sketch(reference))
        ratios += [estimate / true] if true > 1e-9 else []
    near = np.mean([0.5 <= ratio <= 2.0 for ratio in ratios])
    assert len(ratios) > 200
    assert near >= 0.97, near
    assert max(ratios) <= 8.0


def test_the_spread_is_what_the_docstring_says() -> None:
    rng = np.random.default_rng(0)
    ratios = [np.linalg.norm(sketch(x)[:-1]) / np.linalg.norm(x) for x in rng.standard_normal((400, 2000))]
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.03)
    assert np.std(ratios) == pytest.approx(0.09, abs=0.02)


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x[:, ::-1],  # heads in the wrong order
        lambda x: x.swapaxes(2, 3),  # P and N swapped
        lambda x: x[:, :-1],  # the last head missing
        lambda x: np.where(np.arange(x.shape[-1]) == 0, 0, x),  # one channel zero
        lambda x: np.roll(x, 1, axis=-1),
        lambda x: x * 1.01,
        lambda x: -x,
        np.zeros_like,
    ],
)
def test_swapped_truncated_and_scaled_states_are_caught(fault) -> None:  # type: ignore[no-untyped-def]
    state = np.random.default_rng(3).standard_normal((2, 8, 16, 16)).astype(np.float32)
    assert relative_error(sketch(state), sketch(state)) == 0.0
    assert relative_error(sketch(fault(state)), sketch(state)) > 5e-3


def test_an_error_that_cancels_in_its_bucket_shows_in_the_norm() -> None:
    words = splitmix64(SEED, 0, 200)
    first, second = 0, next(i for i in range(1, 200) if words[i] >> np.uint64(58) == words[0] >> np.uint64(58))
    reference, got = np.ones(200), np.ones(200)
    got[first] += 10.0
    got[second] += 10.0 if (words[first] ^ words[second]) & np.uint64(1) else -10.0
    np.testing.assert_allclose(sketch(got)[:-1], sketch(reference)[:-1])
    assert relative_error(sketch(got), sketch(reference)) > 0.2


def test_what_is_not_finite_is_infinitely_wrong() -> None:
    good, bad = sketch(np.ones(10)), sketch(np.array([1.0, np.nan]))
    assert relative_error(bad, good) == relative_error(good, bad) == float("inf")
    assert relative_error(sketch(np.array([np.inf])), good) == float("inf")


def test_a_zero_reference() -> None:
    zero = sketch(np.zeros(10))
    assert zero.shape == (SIZE,)
    assert relative_error(zero, zero) == 0.0
    assert relative_error(sketch(np.ones(10)), zero) == float("inf")
    with pytest.raises(InputError, match="expected 65 numbers"):
        relative_error(zero[:-1], zero)


def test_unwritten_rows_do_not_count_and_neither_does_the_size_of_the_cache() -> None:
    rng, ends = np.random.default_rng(0), np.array([3, 5])
    small, large = rng.standard_normal((2, 2, 6, 4)), rng.standard_normal((2, 2, 50, 4))
    for row, end in enumerate(ends):
        large[row, :, :end] = small[row, :, :end]
    large[0, :, 3:] = np.nan
    kept = written_rows(large, ends)
    assert kept.shape == (2, 2, 5, 4)
    assert not kept[0, :, 3:].any()
    np.testing.assert_array_equal(kept[1], small[1, :, :5])
    assert relative_error(sketch(kept), sketch(written_rows(small, ends))) == 0.0
    assert np.isnan(large[0, 0, 3, 0])  # the caller's cache is not touched
    assert written_rows(large, np.zeros(2, np.int64)).size == 0
