"""Replays a golden run on a backend and measures how far it is from the reference, by logits and by state sketches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elastic_runtime.backend import Backend
from elastic_runtime.errors import BuildError
from elastic_runtime.format.golden import Golden
from elastic_runtime.format.sketch import Sketch, relative_error, sketch, written_rows

if TYPE_CHECKING:  # needs onnx, which an engine's consumer does not have
    from elastic_runtime.ort.layered_twin import LayeredTwin

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
    logits = np.zeros_like(golden.logits)
    groups = list[Mapping[str, Array]]()
    for rows in _groups(len(golden.ids), backend.max_batch):
        backend.start(len(rows))
        for call in range(golden.calls):
            given = golden.call_ids(call)[rows], golden.position[call][rows], golden.length[call][rows]
            logits[call][rows] = backend.call(*given)
        groups.append(backend.states())
    states = {name: np.concatenate([group[name].astype(np.float32) for group in groups]) for name in groups[0]}
    return _judged(
        list(logits), {name: _sketch(name, values, golden) for name, values in states.items()}, golden, bounds
    )


def replay_by_layer(twin: LayeredTwin, golden: Golden, bounds: Bounds) -> Replay:
    """As `replay`, all rows at once, a layer's weights in memory at a time.

    Raises:
        UnavailableError: the memory is not enough for that.
        BuildError: the file's states are not those of the golden run, or it has other tokens.
    """
    _check_tokens(twin.vocab_size, golden)
    states = dict[str, Sketch]()

    def take(name: str, values: Array) -> None:
        states[name] = _sketch(name, values, golden)

    calls = [(golden.call_ids(call), golden.position[call], golden.length[call]) for call in range(golden.calls)]
    logits = twin.run(calls, golden.reach, take)
    return _judged(logits, states, golden, bounds)


def _judged(logits: Sequence[Array], states: Mapping[str, Sketch], golden: Golden, bounds: Bounds) -> Replay:
    """The worst of the logits, [B, V] by call, and of the states after the last one."""
    worst, call = max(_logit_errors(logits, golden), key=_nan_first)
    name, state = _worst_state(states, golden)
    return Replay(worst, call, state, name, bounds)


def _logit_errors(logits: Sequence[Array], golden: Golden) -> Iterator[tuple[float, int]]:
    """(relative error, call) of every row that was fed."""
    for call, lengths in enumerate(golden.length):
        for row in np.flatnonzero(lengths):
            expected = golden.logits[call][row].astype(np.float64)
            difference = np.linalg.norm(logits[call][row].astype(np.float64) - expected)
            yield float(difference / np.linalg.norm(expected)), call


def _sketch(name: str, values: Array, golden: Golden) -> Sketch:
    return sketch(written_rows(values, golden.ends) if "cache" in name else values)


def _worst_state(states: Mapping[str, Sketch], golden: Golden) -> tuple[str, float]:
    if set(states) != set(golden.states):
        differing = sorted(set(states) ^ set(golden.states))
        raise BuildError(
            "golden run",
            expected="the states of the model",
            found=f"differing {differing[:4]}",
            todo="export the bundle again",
        )
    errors = [(relative_error(found, golden.states[name]), name) for name, found in states.items()]
    if not errors:  # MLP layers only
        return "", 0.0
    error, name = max(errors, key=lambda pair: _nan_first((pair[0], 0)))
    return name, error


def _nan_first(pair: tuple[float, int]) -> float:
    """For max(): a NaN is worse than any number."""
    return float("inf") if np.isnan(pair[0]) else pair[0]


def _check_limits(backend: Backend, golden: Golden) -> None:
    tokens = int(golden.tokens.max())
    if golden.reach > backend.max_context or tokens > backend.max_tokens:
        raise BuildError(
            "golden run",
            expected=f"at most {backend.max_context} tokens of context and {backend.max_tokens} a call",
            found=f"{golden.reach} and {tokens}",
            todo="export the bundle again",
        )
    _check_tokens(backend.vocab_size, golden)


def _check_tokens(vocab: int, golden: Golden) -> None:
    if (golden.ids < 0).any() or (golden.ids >= vocab).any():
        raise BuildError(
            "golden run", expected=f"ids from 0 to {vocab - 1}", found="others", todo="export the bundle again"
        )
    if golden.logits.shape[2] != vocab:
        raise BuildError(
            "golden run",
            expected=f"{vocab} logits",
            found=str(golden.logits.shape[2]),
            todo="export the bundle again",
        )


def _groups(rows: int, at_once: int) -> Iterator[Rows]:
    for start in range(0, rows, at_once):
        yield np.arange(start, min(start + at_once, rows))
