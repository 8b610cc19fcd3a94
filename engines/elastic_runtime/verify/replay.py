"""Replays a golden run on a backend and measures how far it is from the reference, by logits and by state sketches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_runtime.backend import Backend
from elastic_runtime.errors import BuildError
from elastic_runtime.format.golden import Golden
from elastic_runtime.format.sketch import relative_error, sketch, written_rows

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Bounds:
    """Most relative L2 error of logits (of any row of any call) and of a state (by its sketch), and why so much."""

    logits: float
    states: float
    reason: str


_SPREAD = 1.5  # an error read off a sketch is within 9 % at one sigma (format/sketch.py): 1.5 is beyond five of them

#: By what computes: the float32 twin, or an engine of a precision.
BOUNDS: dict[str, Bounds] = {
    "twin": Bounds(1e-4, 1e-4 * _SPREAD, "float32 on both sides, sums in another order"),
    "fp32": Bounds(1e-3, 1e-3 * _SPREAD, "float32 on both sides, kernels of another make"),
    "fp16": Bounds(1e-2, 1e-2 * _SPREAD, "11 bits between ops: an eighth of bf16"),
    "bf16": Bounds(6e-2, 6e-2 * _SPREAD, "8 bits between ops: the demo's rounded twin is 0.9 to 1.5 % off"),
}


@dataclass(frozen=True)
class Replay:
    """What came of it: the worst logits and the worst state (no name where the model has none); `passed` is whether
    both are within the bounds.
    """

    logits: float
    call: int
    state: float
    state_name: str
    bounds: Bounds

    @property
    def passed(self) -> bool:
        """Both within the bounds; a NaN is not."""
        return self.logits <= self.bounds.logits and self.state <= self.bounds.states

    def text(self) -> str:
        """One line."""
        states = f"states by {self.state:.2g} ({self.state_name}; bound {self.bounds.states:g})"
        return (
            f"logits off by {self.logits:.2g} at most (call {self.call}; bound {self.bounds.logits:g}), "
            f"{states if self.state_name else 'no states'}"
        )


def replay(backend: Backend, golden: Golden, bounds: Bounds) -> Replay:
    """Run every call of `golden`, as many rows at once as the backend takes, and compare.

    Raises:
        BuildError: the backend's states are not those of the golden run, or its limits are below the run's.
    """
    _check_limits(backend, golden)
    errors, states = list[tuple[float, int]](), list[dict[str, Array]]()
    for rows in _groups(len(golden.ids), backend.max_batch):
        backend.start(len(rows))
        errors += list(_calls(backend, golden, rows))
        states.append(dict(backend.states()))
    worst, call = max(errors, key=_nan_first)
    name, state = _worst_state(states, golden)
    return Replay(worst, call, state, name, bounds)


def _calls(backend: Backend, golden: Golden, rows: Rows) -> Iterator[tuple[float, int]]:
    """(relative error of logits, call) of every row that was fed."""
    for call in range(golden.calls):
        ids, length = golden.call_ids(call)[rows], golden.length[call][rows]
        logits = backend.call(ids, golden.position[call][rows], length)
        for row, count in enumerate(length):
            if count:
                expected = golden.logits[call][rows][row].astype(np.float64)
                difference = np.linalg.norm(logits[row].astype(np.float64) - expected)
                yield float(difference / np.linalg.norm(expected)), call


def _worst_state(groups: list[dict[str, Array]], golden: Golden) -> tuple[str, float]:
    found = {name: np.concatenate([group[name].astype(np.float32) for group in groups]) for name in groups[0]}
    if set(found) != set(golden.states):
        differing = sorted(set(found) ^ set(golden.states))
        raise BuildError(
            "golden run",
            expected="the states of the model",
            found=f"differing {differing[:4]}",
            todo="export the bundle again",
        )
    errors = []
    for name, values in found.items():
        seen = written_rows(values, golden.ends) if "cache" in name else values
        errors.append((relative_error(sketch(seen), golden.states[name]), name))
    if not errors:  # MLP layers only
        return "", 0.0
    error, name = max(errors, key=lambda pair: _nan_first((pair[0], 0)))
    return name, error


def _nan_first(pair: tuple[float, int]) -> float:
    """For max(): a NaN is worse than any number."""
    return float("inf") if np.isnan(pair[0]) else pair[0]


def _check_limits(backend: Backend, golden: Golden) -> None:
    end, tokens = int((golden.position.max(axis=1) + golden.tokens).max()), int(golden.tokens.max())
    if end > backend.max_context or tokens > backend.max_tokens:
        raise BuildError(
            "golden run",
            expected=f"at most {backend.max_context} tokens of context and {backend.max_tokens} a call",
            found=f"{end} and {tokens}",
            todo="export the bundle again",
        )
    if (golden.ids < 0).any() or (golden.ids >= backend.vocab_size).any():
        raise BuildError(
            "golden run",
            expected=f"ids from 0 to {backend.vocab_size - 1}",
            found="others",
            todo="export the bundle again",
        )
    if golden.logits.shape[2] != backend.vocab_size:
        raise BuildError(
            "golden run",
            expected=f"{backend.vocab_size} logits",
            found=str(golden.logits.shape[2]),
            todo="export the bundle again",
        )


def _groups(rows: int, at_once: int) -> Iterator[Rows]:
    for start in range(0, rows, at_once):
        yield np.arange(start, min(start + at_once, rows))
