"""From logits to a token id. The same logits, settings and seed give the same ids in Python and in C++, bit for bit.

Only what IEEE 754 defines exactly is used: comparisons and +, -, *, / of doubles, one at a time, never fused. Weights
are whole numbers, so that their sums are exact in whatever order they are added, and nothing has to be sorted.

    greedy (temperature 0)  the largest logit; of equal ones the lowest id; no random word is used. Otherwise:
    1. weight   w[i] = floor(e((l[i] - l_max) / temperature) * 2^s + 0.5), s = 53 - ceil(log2 V): all V of them add up
                to at most 2^53, below which doubles hold every whole number. It is 0 from about (s + 1) * ln 2
                temperatures below l_max on (25.6 for V = 131072, where s = 36), and for -inf
    2. top-k    the first k candidates in the order (logit descending, id ascending); k = 0: all
    3. top-p    of these the shortest prefix in that order with a sum >= top_p * (the sum of all of them); 1: all
    4. draw     u = (word(seed, n) >> 11) * 2^-53, n the draws made before; in the order of ids, the first that stayed
                whose running sum is > u * (the sum of all that stayed)
    word        splitmix64, as format/sketch.py writes it down
    e(x)        x <= 0; 0 below -708; else k = floor(x * 1.4426950408889634 + 0.5),
                r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10 (ln 2 in two parts),
                p = 1/13!, then p = p * r + 1/i! for i = 12 ... 0; e = p * 2^k

A weight is rounded by at most 1/2 where the sum is at least 2^s: no weight is off by more than 2^-(s+1) of the sum, and
all of them together by at most V * 2^-(s+1), which is 7e-12 and 1e-6 for V = 131072. u times a sum S <= 2^53 is below S
after rounding, so step 4 always ends at a candidate, and never at one of weight 0.

Row b of a batch draws with the seed + b modulo 2^64. tests/golden/sampler.json holds both languages to this.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.records import is_integer, show
from elastic_runtime.format.sketch import splitmix64

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]
_SEEDS = 1 << 64
_MOST = (1 << 63) - 1  # of top_k: what C++ counts with
_INVERSE_FACTORIAL = [1 / math.factorial(i) for i in range(14)]
_BLOCK = 1 << 13
_DIGITS = ((20, 0xFFF), (8, 0xFFF), (0, 0xFF))  # (shift, mask) of the digits of 32 bits


@dataclass(frozen=True)
class Sampling:
    """How to draw: `temperature` 0 is greedy, `top_k` 0 and `top_p` 1 leave everything in.

    Raises:
        InputError: temperature below 0 or not finite, top_k below 0 or beyond 63 bits, top_p outside of
            (0, 1], a seed beyond 64 bits.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not _is_number(self.temperature) or not 0 <= self.temperature < math.inf:
            raise InputError(
                "temperature",
                expected="a number from 0",
                found=_number(self.temperature),
                todo="give 0 for the likeliest token, or such as 0.7",
            )
        if not is_integer(self.top_k) or self.top_k < 0:
            raise InputError(
                "top_k", expected="0 (no limit) or more", found=show(self.top_k), todo="give 0, or such as 40"
            )
        if self.top_k > _MOST:
            raise InputError("top_k", expected=f"at most {_MOST}", found=show(self.top_k), todo="give 0 for no limit")
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise InputError(
                "top_p",
                expected="a number above 0, up to 1",
                found=_number(self.top_p),
                todo="give 1 for no limit, or such as 0.95",
            )
        if not is_integer(self.seed) or not 0 <= self.seed < _SEEDS:
            raise InputError("seed", expected="0 to 2^64 - 1", found=show(self.seed), todo="give another")
        # NumPy's own would wrap around or round: a float16 of it makes float16s of what it is multiplied with.
        for name, kind in (("temperature", float), ("top_k", int), ("top_p", float), ("seed", int)):
            object.__setattr__(self, name, kind(getattr(self, name)))

    def row(self, row: int) -> Sampling:
        """The settings of a row of a batch."""
        return replace(self, seed=(self.seed + row) % _SEEDS)


class Sampler:
    """Draws token ids for one sequence."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling, self._draws, self._scratch = sampling, 0, _Scratch(0)

    def sample(self, logits: npt.NDArray[np.floating[Any]]) -> int:
        """The next id for logits [V]; those of 16 bits are widened. Raises BuildError about what is no distribution."""
        logits = np.asarray(logits, np.float32)
        best = _best(logits)
        settings, largest = self._sampling, float(logits[best])
        if settings.temperature == 0:
            return best
        ids = _candidates(logits, largest, settings.temperature)
        if ids.size > self._scratch.size:
            self._scratch = _Scratch(ids.size)
        if 0 < settings.top_k < ids.size:
            ids = ids[_leading(self._scratch, logits, ids, None, settings.top_k)]
        weights = _weights(self._scratch, logits, ids, largest, settings.temperature)
        if settings.top_p < 1:
            weights *= _leading(self._scratch, logits, ids, weights, settings.top_p * float(weights.sum()))
        sums = np.cumsum(weights, out=weights)
        word = int(splitmix64(settings.seed, self._draws, 1)[0])
        self._draws += 1
        return int(ids[np.searchsorted(sums, (word >> 11) * 2.0**-53 * sums[-1], "right")])


class _Scratch:
    """Arrays kept from token to token: fresh pages cost more than what is computed in them."""

    def __init__(self, size: int) -> None:
        self.size, self.weights = size, np.empty(size)
        self.keys, self.digits = np.empty(size, np.uint32), np.empty(size, np.intp)


def exact_exp(x: Doubles) -> Doubles:
    """e(x) of the module docstring, element by element."""
    bounded = np.maximum(x, -708.0)
    k = np.floor(bounded * 1.4426950408889634 + 0.5)
    r = (bounded - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10
    p = np.full_like(r, _INVERSE_FACTORIAL[13])
    for i in range(12, -1, -1):
        p *= r
        p += _INVERSE_FACTORIAL[i]
    p *= ((k.astype(np.int64) + 1023) << 52).view(np.float64)  # 2^k, by its bits: k is at least -1021
    p[x < -708] = 0
    return p


def _exponent(logits: Singles) -> int:
    return 53 - (logits.size - 1).bit_length()


def _candidates(logits: Singles, largest: float, temperature: float) -> Ids:
    """The ids of all that weigh anything, in their order, and of few that do not: nothing depends on these."""
    # Above one temperature beyond where weights become 0, so that no rounding here matters.
    least = largest - (_exponent(logits) + 3) * math.log(2) * temperature
    with np.errstate(over="ignore"):  # far below: -inf
        return np.flatnonzero(logits >= np.float32(least))


def _weights(scratch: _Scratch, logits: Singles, ids: Ids, largest: float, temperature: float) -> Doubles:
    """Step 1, for these ids; in blocks that a core's own cache holds with all that the polynomial needs."""
    scale, weights = 2.0 ** _exponent(logits), scratch.weights[: ids.size]
    with np.errstate(over="ignore"):  # a tiny temperature: -inf weighs nothing
        for start in range(0, ids.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            found = exact_exp((logits[ids[block]].astype(np.float64) - largest) / temperature)
            found *= scale
            found += 0.5
            np.floor(found, out=weights[block])
    return weights


def _leading(
    scratch: _Scratch, logits: Singles, ids: Ids, weights: Doubles | None, wanted: float
) -> npt.NDArray[np.bool_]:
    """Which candidates, given in the order of ids, are the shortest prefix in the order (logit descending, id
    ascending) that has `wanted` together: of the weights, or of candidates where there are none. All have so much.

    A radix selection: the digits of the last logit are found one after the other, the highest first, each by a
    histogram of what the digits before it leave.
    """
    keys = _descending(scratch, logits, ids)
    rest, before = keys, 0.0  # those with the digits found so far; what all before them have
    for shift, mask in _DIGITS:
        if rest.min() == rest.max():
            break
        digits = np.right_shift(rest, shift, out=scratch.digits[: rest.size], casting="unsafe")
        digits &= mask
        sums = before + np.cumsum(np.bincount(digits, weights))
        digit = int(np.searchsorted(sums, wanted, "left"))
        before = float(sums[digit - 1]) if digit else before
        inside = np.flatnonzero(digits == digit)
        rest, weights = rest[inside], None if weights is None else weights[inside]
    shares = np.ones(rest.size) if weights is None else weights
    count = int(np.searchsorted(before + np.cumsum(shares), wanted, "left")) + 1  # of equal logits, by their ids
    stays: npt.NDArray[np.bool_] = keys <= rest[0]
    if count < rest.size:
        stays[np.flatnonzero(keys == rest[0])[count:]] = False
    return stays


def _descending(scratch: _Scratch, logits: Singles, ids: Ids) -> npt.NDArray[np.uint32]:
    """Numbers that order as these logits do, the largest logit first; 0.0 and -0.0 are equal."""
    keys, flips = scratch.keys[: ids.size], scratch.digits.view(np.uint32)[: ids.size]
    values = np.take(logits, ids, out=keys.view(np.float32), mode="clip")  # the other modes go through a copy
    values += np.float32(0)
    np.right_shift(keys, 31, out=flips)
    flips -= np.uint32(1)  # none of a negative number, whose larger bits are the smaller logit
    flips &= np.uint32(0x7FFFFFFF)
    keys ^= flips
    return keys


def _best(logits: Singles) -> int:
    """The id of the largest logit, the lowest of equal ones."""
    best = int(logits.argmax()) if logits.size else -1  # a NaN counts as the largest
    if best >= 0 and math.isfinite(logits[best]):
        return best
    wrong = np.flatnonzero(np.isnan(logits) | np.isposinf(logits))
    found = f"{'nan' if np.isnan(logits[wrong[0]]) else 'inf'} at id {wrong[0]}" if wrong.size else "not one"
    raise BuildError("logits", expected="finite numbers", found=found, todo="verify the bundle")


def _is_number(value: object) -> bool:
    """Whether a double holds it: an integer may be beyond all of them."""
    if is_integer(value):
        return abs(int(value)) <= sys.float_info.max
    return isinstance(value, float | np.floating)


def _number(value: float) -> str:
    """As C++ writes it: six decimals, zeros at the end left out but one."""
    if not _is_number(value):
        return show(value)
    text = f"{value:f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text
