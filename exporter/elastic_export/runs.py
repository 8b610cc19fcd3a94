"""What the exporter does with index runs, which say what part of a tensor is meant; the runtime cuts by them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from elastic_runtime.format.slicing import Runs, TensorRuns, full_runs

__all__ = [
    "Runs", "TensorRuns", "bands_of", "chosen_runs", "full_runs", "positions", "runs_length", "runs_of", "runs_shape",
]  # fmt: skip


def runs_of(keep: npt.NDArray[np.bool_]) -> Runs:
    """The maximal runs of a boolean vector: [1,1,0,1] -> ((0,2),(3,1))."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], keep.astype(np.int8), [0]])))
    return tuple((int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def positions(runs: Runs) -> npt.NDArray[np.int64]:
    """((0,2),(3,1)) -> [0, 1, 3]."""
    return np.concatenate([np.arange(start, start + count) for start, count in runs])


def chosen_runs(runs: Runs, keep: npt.NDArray[np.bool_]) -> Runs:
    """The runs of those of their indices that `keep` says: ((4,3),(9,1)), [1,0,1,1] -> ((4,1),(6,1),(9,1))."""
    indices = positions(runs)
    chosen = np.zeros(indices[-1] + 1, dtype=bool)
    chosen[indices[keep]] = True
    return runs_of(chosen)


def runs_length(runs: Runs) -> int:
    """How many indices `runs` holds."""
    return sum(count for _, count in runs)


def runs_shape(runs: TensorRuns) -> tuple[int, ...]:
    """Shape of the sliced tensor."""
    return tuple(runs_length(axis) for axis in runs)


def bands_of(runs: Runs, most: int, gap: int) -> Iterator[tuple[int, Runs]]:
    """Cut runs into bands of neighbours, to be read at once.

    Args:
        runs: of one axis.
        most: indices from a band's first to its last, at most.
        gap: indices between two runs of a band, at most.

    Yields:
        (first index, the band's runs counted from there): all indices once, in order.
    """
    pieces = ((at, min(most, start + count - at)) for start, count in runs for at in range(start, start + count, most))
    first, end, band = 0, 0, list[tuple[int, int]]()
    for start, count in pieces:
        if band and (start + count - first > most or start - end > gap):
            yield first, tuple(band)
            band = []
        first, end = start if not band else first, start + count
        band.append((start - first, count))
    if band:
        yield first, tuple(band)
