"""How far two runs are apart: per tensor, the worst over all calls and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Difference:
    """Of one tensor: its relative L2 error (the worst row's, or that of all rows and calls together), the largest
    absolute difference of the worst row, after which call, and the share of all its values that differ at all.

    `noise` and `noise_share` are the same two figures between two implementations known to be right, where a check has
    measured them: how far apart they are on this very model. `left_out`: heads that the error does not count.
    """

    tensor: str
    error: float
    max_abs: float
    call: int
    share: float
    noise: float = 0.0
    noise_share: float = 0.0
    left_out: int = 0


@dataclass(frozen=True)
class Comparison:
    """All tensors, and the share of rows whose most likely token is the same."""

    differences: tuple[Difference, ...]
    top1: float

    @property
    def worst(self) -> Difference:
        """The tensor that is furthest off."""
        return max(self.differences, key=lambda difference: difference.error)


#: Share of an SSM state's heads of which each may have had a time step that rounded to the other side: one rounding
#: that changes all the head takes in of a token. An empirical trim of the heads furthest off, measured on random
#: weights: in a 12B one head of 112 held 97 % of a state's squared error (1.6e-3 with it, 2.6e-4 without), itself off
#: by 8e-3. What it gives up: a fault that only the rounded twin has, in the written states of so few heads, and no
#: larger than such a rounding. The check in float32 compares every head.
FLIPPED = 0.02


class Tally:
    """Collects differences, row by row and call by call.

    Args:
        pooled: whether a tensor's error is over all rows and calls together, for checks in which a single rounding that
            falls to the other side in a small row is no fault. Else the worst row counts: a small error in one row does
            not hide behind a large row.
        flip: how far off, relative to itself, a flipped rounding may put a head of a pooled SSM state [H, P, N]: up to
            `FLIPPED` of the heads, of those that are no further off, are left out.
    """

    def __init__(self, *, pooled: bool = False, flip: float = 0.0) -> None:
        self._pooled, self._flip = pooled, flip
        self._heads: dict[str, npt.NDArray[np.float64]] = {}
        self._worst: dict[str, Difference] = {}
        self._sums: dict[str, npt.NDArray[np.float64]] = {}
        self._rows = self._agree = 0

    def add(self, tensor: str, call: int, got: Array, expected: Array) -> None:
        """One row of one tensor after one call."""
        if got.shape != expected.shape:
            raise ValueError(f"{tensor}: {got.shape} against {expected.shape}")
        distance, norm = _norm(got - expected), _norm(expected)
        most = float(np.abs(got - expected).max(initial=0.0))
        found = Difference(tensor, _ratio(distance, norm), most, call, 0.0)
        if tensor not in self._worst or not found.error <= self._worst[tensor].error:
            self._worst[tensor] = found
        sums = self._sums.setdefault(tensor, np.zeros(4))
        sums += np.array([distance**2, norm**2, np.count_nonzero(got != expected), got.size], np.float64)

    def add_logits(self, call: int, got: Array, expected: Array) -> None:
        """Logits [V] of one row; they vote on the most likely token besides."""
        self.add("logits", call, got, expected)
        self._rows += 1
        self._agree += int(got.argmax() == expected.argmax())

    def add_state(self, tensor: str, call: int, got: Array, expected: Array, end: int) -> None:
        """A state of one row; of caches [kv, S, hd] the rows before `end` (the others are unspecified)."""
        if "cache" in tensor:
            got, expected = got[:, :end], expected[:, :end]
        self.add(tensor, call, got, expected)
        if self._flip and tensor.startswith("ssm_state"):
            squares = np.array([_squares(got - expected), _squares(expected)])
            self._heads[tensor] = self._heads.get(tensor, 0.0) + squares

    def add_states(
        self, call: int, got: Mapping[str, Array], expected: Mapping[str, Array], ends: Sequence[int]
    ) -> None:
        """Every state of `expected` after a call, all rows; one that `got` does not have is infinitely wrong."""
        for name, states in expected.items():
            for row, end in enumerate(ends):
                if name in got:
                    self.add_state(name, call, got[name][row], states[row], end)
                else:
                    self.add_missing(name, call)

    def add_missing(self, tensor: str, call: int = 0) -> None:
        """A tensor that is not there."""
        self.add(tensor, call, np.full(1, np.nan, np.float32), np.ones(1, np.float32))

    def differences(self, names: Sequence[str]) -> list[Difference]:
        """What was collected of these tensors."""
        return [self._complete(self._worst[name]) for name in names]

    def comparison(self, first: Sequence[str] = ()) -> Comparison:
        """What was collected; in the order in which it was added, but for `first`."""
        names = [*(name for name in first if name in self._worst), *(name for name in self._worst if name not in first)]
        return Comparison(tuple(self.differences(names)), self._agree / max(1, self._rows))

    def _complete(self, worst: Difference) -> Difference:
        distance, norm, differing, size = self._sums[worst.tensor]
        left_out = 0
        if np.isfinite(distance) and worst.tensor in self._heads:
            heads = self._heads[worst.tensor]
            flipped = _flipped(heads, self._flip)
            kept = np.delete(heads, flipped, axis=1)
            (distance, norm), left_out = kept.sum(axis=1), len(flipped)
        error = _ratio(distance**0.5, norm**0.5) if self._pooled else worst.error
        return replace(worst, error=error, share=float(differing / max(1.0, size)), left_out=left_out)


def _flipped(heads: npt.NDArray[np.float64], flip: float) -> npt.NDArray[np.int64]:
    """The heads that a flipped rounding explains, the furthest off first, as many as may be left out of a sum.

    `heads` is [2, H]: squares of the distance and of the expected values.
    """
    distance, norm = heads
    explained = np.flatnonzero(distance <= flip**2 * norm)
    return explained[np.argsort(-distance[explained], kind="stable")][: int(FLIPPED * len(norm))]


def _squares(values: Array) -> npt.NDArray[np.float64]:
    """By the first axis."""
    squares: npt.NDArray[np.float64] = np.square(values.astype(np.float64)).reshape(len(values), -1).sum(axis=1)
    return squares


def _norm(values: Array) -> float:
    return float(np.linalg.norm(values.astype(np.float64).ravel()))


def _ratio(distance: float, norm: float) -> float:
    if not np.isfinite(distance) or not np.isfinite(norm):
        return float("inf")
    if norm == 0.0:
        return 0.0 if distance == 0.0 else float("inf")
    return distance / norm
