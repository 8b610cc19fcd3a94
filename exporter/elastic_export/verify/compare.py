"""How far two runs are apart: per tensor, the worst over all calls and rows."""

from __future__ import annotations

import math
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
    measured them: how far apart they are on this very model.
    """

    tensor: str
    error: float
    max_abs: float
    call: int
    share: float
    noise: float = 0.0
    noise_share: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """All tensors, and the share of rows whose most likely token is the same."""

    differences: tuple[Difference, ...]
    top1: float

    @property
    def worst(self) -> Difference:
        """The tensor that is furthest off."""
        return max(self.differences, key=lambda difference: difference.error)


#: Share of an SSM state's heads, one at least, of which each may have had a time step that rounded to the other side:
#: that is a single rounding, and changes all that the head takes in of a token by 2^-8. Measured in a 12B: one head of
#: 112 held 97 % of a state's squared error (1.6e-3 with it, 2.6e-4 without). Such a head's output is in the branch, and
#: the check in float32 compares every head.
FLIPPED = 0.02


class Tally:
    """Collects differences, row by row and call by call.

    Args:
        pooled: whether a tensor's error is over all rows and calls together, for checks in which a single rounding that
            falls to the other side in a small row is no fault. Else the worst row counts: a small error in one row does
            not hide behind a large row. Of pooled SSM states [H, P, N] the `FLIPPED` heads furthest off are left out.
    """

    def __init__(self, *, pooled: bool = False) -> None:
        self._pooled = pooled
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
        if self._pooled and tensor.startswith("ssm_state"):
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
        if worst.tensor in self._heads:
            heads = self._heads[worst.tensor]
            nearest, off = heads[0].argsort(), math.ceil(FLIPPED * heads.shape[1])
            if np.isfinite(heads[0]).all() and heads.shape[1] > off:  # else a head that is no number would be left out
                distance, norm = heads[:, nearest[:-off]].sum(axis=1)
        error = _ratio(distance**0.5, norm**0.5) if self._pooled else worst.error
        return replace(worst, error=error, share=float(differing / max(1.0, size)))


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
