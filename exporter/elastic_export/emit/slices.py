"""What the passes kept against what a budget means: two statements of the same thing, written independently."""

from __future__ import annotations

from elastic_export.checkpoint.architecture import Architecture
from elastic_export.checkpoint.budget import Budget
from elastic_export.checkpoint.slicing import state_runs, tensor_runs
from elastic_export.emit.emit import EmittedModel
from elastic_runtime.errors import BuildError


def check_slices(model: EmittedModel, parent: Architecture, budget: Budget, prefix: str) -> None:
    """Raise BuildError unless every weight and state keeps exactly the channels that the budget's definition says.

    Verification masks the parent with the same masks that the passes bind; a mask of the right width in the wrong place
    would pass it. The runs in `checkpoint.slicing` are derived from the budget without masks or graphs.
    """
    expected = tensor_runs(parent, budget, prefix)
    found = {weight.tensor: weight.runs for weight in model.weight_slices}
    states = {name: runs for name, (_, runs) in state_runs(parent, budget).items()}
    kept = {state.input: state.runs[1:] for state in model.state_slices}
    for what, want, have in (("weight", expected, found), ("state", states, kept)):
        for name in sorted({*want, *have}):
            mine, theirs = have.get(name), want.get(name)
            if mine is None or theirs is None or not _same(mine, theirs):
                raise BuildError(f"{what} {name} of {budget.name}", expected=f"runs {theirs}", found=f"{mine}")


def _same(kept: tuple[tuple[tuple[int, int], ...] | None, ...], meant: object) -> bool:
    """Axis by axis; a dynamic axis (None) is not part of what a budget cuts."""
    assert isinstance(meant, tuple)
    pairs = zip(kept, meant, strict=True)
    return all(mine is None or tuple(mine) == tuple(theirs) for mine, theirs in pairs)
