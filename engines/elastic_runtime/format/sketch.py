"""Sketches: 65 float64 numbers that tell how far a tensor is from one that is not at hand.

Element i (row-major, from 0) of a tensor x is multiplied by a sign and added to one of 64 sums:

    z = seed + (i + 1) * 0x9E3779B97F4A7C15                (all arithmetic modulo 2^64: splitmix64's i-th output)
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z = z ^ (z >> 31)
    sum[z >> 58] += x[i] if z is even else -x[i]           (float64, i ascending)

and number 64 is the L2 norm of x. This is a count sketch (Charikar, Chen, Farach-Colton 2002): it is linear, and the
square of the norm of sketch(a) - sketch(b) has the mean ||a - b||^2 and a relative standard deviation of at most
sqrt(2/64) = 18 %, so the norm itself is within 9 % at one sigma, whatever a and b are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_runtime.errors import InputError

BUCKETS = 64
SIZE = BUCKETS + 1
SEED = 0x656C6173746963  # "elastic"
Sketch = npt.NDArray[np.float64]
_GAMMA, _MIX1, _MIX2 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_PIECE = 1 << 18  # elements at a time: the working set stays in the cache


def sketch(values: npt.NDArray[Any], *, seed: int = SEED) -> Sketch:
    """The sketch of a tensor of any shape and float type: float64 [65]."""
    flat, sums, square = np.ravel(values), np.zeros(BUCKETS), 0.0
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE].astype(np.float64)
        words = splitmix64(seed, start, piece.size)
        signed = np.where(words & np.uint64(1), -piece, piece)
        sums += np.bincount((words >> np.uint64(58)).astype(np.intp), weights=signed, minlength=BUCKETS)
        square += float(piece @ piece)
    return np.append(sums, np.sqrt(square))


def splitmix64(seed: int, start: int, count: int) -> npt.NDArray[np.uint64]:
    """Words `start` to `start + count - 1` of the generator, as in the module docstring."""
    with np.errstate(over="ignore"):
        z: npt.NDArray[np.uint64] = np.uint64(seed) + np.arange(start + 1, start + count + 1, dtype=np.uint64) * _GAMMA
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)


def relative_error(got: Sketch, reference: Sketch) -> float:
    """Estimate of ||a - b|| / ||b|| from sketch(a) and sketch(b); infinite where a is not finite or b is zero and a
    is not.

    The difference of the norms is a lower bound that needs no estimate; the larger of both is returned.
    """
    if got.shape != (SIZE,) or reference.shape != (SIZE,):
        raise InputError(
            "sketch",
            expected=f"{SIZE} numbers",
            found=f"{got.shape} and {reference.shape}",
            todo="make both with sketch()",
        )
    if not np.isfinite(got).all() or not np.isfinite(reference).all():
        return float("inf")
    difference = max(float(np.linalg.norm(got[:-1] - reference[:-1])), abs(float(got[-1] - reference[-1])))
    norm = float(reference[-1])
    if norm == 0.0:
        return 0.0 if difference == 0.0 else float("inf")
    return difference / norm


def written_rows(cache: npt.NDArray[Any], ends: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The specified part of a cache: [B, kv, S, hd] cut to the longest row's end, rows past a row's own end set to
    zero.

    A cache is sketched so, or its sketch would depend on S and on rows that no rule specifies.

    Args:
        cache: [B, kv, S, hd].
        ends: [B], position + length of each row after the last call.
    """
    cut = np.array(cache[:, :, : int(ends.max(initial=0))])
    unwritten = np.arange(cut.shape[2])[None, :] >= ends[:, None]
    cut.swapaxes(1, 2)[unwritten] = 0  # a view: [B, S, kv, hd]
    return cut
