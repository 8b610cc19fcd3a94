"""Index runs: which part of a tensor's axes is meant. One definition for checkpoint, graph, passes and recipes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

#: (start, count) along one axis: ascending, not empty, not touching each other.
Runs = tuple[tuple[int, int], ...]
#: One `Runs` per axis of a tensor.
TensorRuns = tuple[Runs, ...]


def runs_of(keep: npt.NDArray[np.bool_]) -> Runs:
    """The maximal runs of a boolean vector: [1,1,0,1] -> ((0,2),(3,1))."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], keep.astype(np.int8), [0]])))
    return tuple((int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def positions(runs: Runs) -> npt.NDArray[np.int64]:
    """((0,2),(3,1)) -> [0, 1, 3]."""
    return np.concatenate([np.arange(start, start + count) for start, count in runs])


def full_runs(shape: Sequence[int]) -> TensorRuns:
    """The runs that keep everything of a tensor of this shape."""
    return tuple(((0, size),) for size in shape)


def runs_length(runs: Runs) -> int:
    """How many indices `runs` holds."""
    return sum(count for _, count in runs)


def runs_shape(runs: TensorRuns) -> tuple[int, ...]:
    """Shape of the sliced tensor."""
    return tuple(runs_length(axis) for axis in runs)
