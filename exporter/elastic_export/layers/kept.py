"""What a budget keeps of every tensor and state, as exact index runs, straight from the table of layer kinds.

It knows tensors and nothing of graphs. The narrow pass, which knows graphs and nothing of the table, must come to the
same runs (`verify.slices`); `derive` and the sliced checkpoint are made with these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from elastic_export.layers.architecture import Architecture, Layer
from elastic_export.layers.axis import Extent, kept_of
from elastic_export.layers.budget import Budget
from elastic_export.runs import Runs, TensorRuns, runs_of, runs_shape
from elastic_runtime.format.slicing import copy_runs


def tensor_runs(
    parent: Architecture, budget: Budget, prefix: str = "backbone", *, last: bool = False
) -> dict[str, TensorRuns]:
    """Per parent tensor that the sub-model keeps: its runs on every axis, in the order of `Architecture.tensors`.

    Tensors of skipped layers are absent. `last`: see `kept_of`.
    """
    return {
        stored.name: tuple(_runs(axis, parent, budget, stored.layer, last=last) for axis in stored.tensor.axes)
        for stored in parent.tensors(prefix)
        if stored.layer is None or stored.layer.index not in budget.skip_layers
    }


def state_runs(parent: Architecture, budget: Budget) -> dict[str, tuple[str, TensorRuns]]:
    """Per state of the sub-model (`conv_state.i`, …): the parent's state and the runs of its axes after the batch.

    The cache's token axis, S, has no fixed length: caches list only their (KV heads, head dim) axes, which are whole.
    """
    states: dict[str, tuple[str, TensorRuns]] = {}
    kept: dict[str, int] = {}
    for state, layer in parent.states():
        if layer.index in budget.skip_layers:
            continue
        mine = kept.get(state.kind, 0)
        kept[state.kind] = mine + 1
        runs = tuple(_runs(axis, parent, budget, layer) for axis in state.axes if axis is not None)
        states[f"{state.kind}.{mine}"] = (f"{state.kind}.{layer.ordinal}", runs)
    return states


def sub_model_name(name: str, parent: Architecture, budget: Budget, prefix: str = "backbone") -> str | None:
    """A parent tensor's name in the sub-model, its layer renumbered; None where the layer is skipped."""
    lead = f"{prefix}.layers."
    if not name.startswith(lead):
        return name
    index, rest = name.removeprefix(lead).split(".", 1)
    layer = int(index)
    return None if layer in budget.skip_layers else f"{lead}{budget.kept_layers(parent).index(layer)}.{rest}"


def slice_array(array: np.ndarray[Any, Any], runs: TensorRuns) -> np.ndarray[Any, Any]:
    """The kept indices of every axis, row-major and contiguous; the array itself where that is all of it."""
    if runs_shape(runs) == array.shape and array.flags.c_contiguous:
        return array
    return copy_runs(array, runs)


def sliced_blocks(
    read: Callable[[slice], np.ndarray[Any, Any]], runs: TensorRuns, max_bytes: int = 64 << 20
) -> Iterator[np.ndarray[Any, Any]]:
    """`slice_array` of an array in pieces along its first axis, each of at most `max_bytes` (or one row): for
    streaming. `read` gives rows of it.
    """
    rows, rest = runs[0], runs[1:]
    step = max(1, max_bytes // max(1, read(slice(0, 1)).nbytes))
    for start, count in rows:
        for first in range(start, start + count, step):
            last = min(first + step, start + count)
            yield slice_array(read(slice(first, last)), (((0, last - first),), *rest))


def _runs(axis: Extent, parent: Architecture, budget: Budget, layer: Layer | None, *, last: bool = False) -> Runs:
    return runs_of(kept_of(axis, parent, budget, layer.ordinal if layer else 0, last=last))
