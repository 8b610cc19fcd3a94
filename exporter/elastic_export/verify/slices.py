"""What the passes kept against what a budget means: two statements of the same thing, written independently."""

from __future__ import annotations

from collections.abc import Sequence

from elastic_export.emit.emit import EmittedModel
from elastic_export.graph.facts import tensor_slices
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import state_runs, tensor_runs
from elastic_export.runs import Runs, TensorRuns
from elastic_runtime.errors import InternalError


def check_slices(model: EmittedModel, parent: Architecture, budget: Budget, prefix: str) -> None:
    """Raise InternalError unless every weight and state keeps exactly the channels that the budget's definition says.

    Verification masks the parent with the same masks that the passes bind; a mask of the right width in the wrong place
    would pass it. The runs in `layers.kept` are derived from the budget without masks or graphs.
    """
    expected = tensor_runs(parent, budget, prefix)
    found = _runs_of(model)
    states = {name: runs for name, (_, runs) in state_runs(parent, budget).items()}
    kept = {state.input: state.runs[1:] for state in model.state_slices}
    for what, want, have in (("weight", expected, found), ("state", states, kept)):
        for name in sorted({*want, *have}):
            mine, theirs = have.get(name), want.get(name)
            if mine is None or theirs is None or not _same(mine, theirs):
                raise InternalError(f"{what} {name} of {budget.name}", expected=f"runs {theirs}", found=f"{mine}")


def _runs_of(model: EmittedModel) -> dict[str, TensorRuns]:
    """Runs by tensor. Raises InternalError where two inputs, values and scales, keep different ones of a tensor."""
    found = dict[str, TensorRuns]()
    for part in tensor_slices(model.weight_sources.values()):
        if found.setdefault(part.tensor, part.runs) != part.runs:
            expected = f"the same runs of {part.tensor} wherever it is read, {found[part.tensor]}"
            raise InternalError(f"weight {part.tensor}", expected=expected, found=f"{part.runs}")
    return found


def _same(kept: Sequence[Runs | None], meant: Sequence[Runs]) -> bool:
    """Axis by axis; the dynamic axis of a cache (None) is none that a budget cuts, and `meant` leaves it out."""
    return [tuple(axis) for axis in kept if axis is not None] == [tuple(axis) for axis in meant]
