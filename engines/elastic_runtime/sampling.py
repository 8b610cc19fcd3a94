"""From logits to a token id. The same logits, settings and seed give the same ids in Python and in C++, bit for bit.

Only what IEEE 754 defines exactly is used: comparisons and +, -, *, / of doubles, one at a time, never fused.

    greedy (temperature 0)  the largest logit; of equal ones the lowest id; no random word is used. Otherwise:
    1. order    candidates by (logit descending, id ascending); -inf is left out
    2. top-k    the first k of them, all where there are fewer (0: all)
    3. weight   w[i] = e((l[i] - l[first]) / temperature) in doubles
    4. top-p    total = w[0] + w[1] + ... from left to right; the shortest prefix whose running sum is >=
                top_p * total stays (1: all stay)
    5. draw     u = (word(seed, n) >> 11) * 2^-53, n the draws made before; the first candidate whose running sum is
                > u * (total of what stayed), or the last one
    word        splitmix64, as format/sketch.py writes it down
    e(x)        x <= 0; 0 below -708; else k = floor(x * 1.4426950408889634 + 0.5),
                r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10 (ln 2 in two parts),
                p = 1/13!, then p = p * r + 1/i! for i = 12 ... 0; e = p * 2^k

Row b of a batch draws with the seed + b modulo 2^64. tests/golden/sampler.json holds both languages to this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.records import show
from elastic_runtime.format.sketch import splitmix64

Doubles = npt.NDArray[np.float64]
_SEEDS = 1 << 64
_MOST = (1 << 63) - 1  # of top_k: what C++ counts with
_INVERSE_FACTORIAL = [1 / math.factorial(i) for i in range(14)]


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

    def row(self, row: int) -> Sampling:
        """The settings of a row of a batch."""
        return replace(self, seed=(self.seed + row) % _SEEDS)


class Sampler:
    """Draws token ids for one sequence."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling, self._draws = sampling, 0

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """The next id for logits [V]. Raises BuildError about logits that are no distribution."""
        best = _best(logits)
        settings = self._sampling
        if settings.temperature == 0:
            return best
        order = _order(logits, settings.top_k)
        distance = logits[order].astype(np.float64) - np.float64(logits[order[0]])
        with np.errstate(over="ignore"):  # a tiny temperature: -inf weighs nothing
            sums = np.cumsum(exact_exp(distance / settings.temperature))  # one addition after the other
        if settings.top_p < 1:
            sums = sums[: int(np.searchsorted(sums, settings.top_p * sums[-1], "left")) + 1]
        word = int(splitmix64(settings.seed, self._draws, 1)[0])
        self._draws += 1
        target = (word >> 11) * 2.0**-53 * sums[-1]
        return int(order[min(int(np.searchsorted(sums, target, "right")), len(sums) - 1)])


def exact_exp(x: Doubles) -> Doubles:
    """e(x) of the module docstring, element by element."""
    bounded = np.maximum(x, -708.0)
    k = np.floor(bounded * 1.4426950408889634 + 0.5)
    r = (bounded - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10
    p = np.full_like(r, _INVERSE_FACTORIAL[13])
    for i in range(12, -1, -1):
        p = p * r + _INVERSE_FACTORIAL[i]
    return np.where(x < -708, 0.0, np.ldexp(p, k.astype(np.intc)))


def _best(logits: npt.NDArray[np.float32]) -> int:
    """The id of the largest logit, the lowest of equal ones."""
    best = int(logits.argmax()) if logits.size else -1  # a NaN counts as the largest
    if best >= 0 and math.isfinite(logits[best]):
        return best
    wrong = np.flatnonzero(np.isnan(logits) | np.isposinf(logits))
    found = f"{'nan' if np.isnan(logits[wrong[0]]) else 'inf'} at id {wrong[0]}" if wrong.size else "not one"
    raise BuildError("logits", expected="finite numbers", found=found, todo="verify the bundle")


def _order(logits: npt.NDArray[np.float32], top_k: int) -> npt.NDArray[Any]:
    """Steps 1 and 2. Only what reaches the k-th logit is sorted where there is a k."""
    candidates = np.flatnonzero(logits > -np.inf)
    if 0 < top_k < candidates.size:
        bound = np.partition(logits[candidates], candidates.size - top_k)[candidates.size - top_k]
        candidates = candidates[logits[candidates] >= bound]
    order = candidates[np.argsort(-logits[candidates], kind="stable")]
    return order[:top_k] if top_k else order


def is_integer(value: object) -> bool:
    """Whether it counts: a bool and a float do not, be they whole."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return is_integer(value) or isinstance(value, float | np.floating)


def _number(value: float) -> str:
    """As C++ writes it: six decimals, zeros at the end left out but one."""
    if not _is_number(value):
        return show(value)
    text = f"{value:f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text
