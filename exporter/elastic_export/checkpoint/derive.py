"""Find the budgets of checkpoints that somebody else cut out of an elastic parent, and prove them.

The vendor's slicing script is the authority on what a sub-model keeps; ours must agree with it to the byte. Widths come
from the cut checkpoint's shapes and config, kept layers from comparing tensors, and nothing is guessed: what could be
read in two ways is an error that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from elastic_export.checkpoint.alignment import check_alignment
from elastic_export.checkpoint.budgets import budgets_document, check_name, parse_budgets
from elastic_export.checkpoint.conversion import convert
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.layers.all_kinds import AXES, ELASTIC_AXES, KIND_OF, KIND_OF_AXIS
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import sliced_blocks, sub_model_name, tensor_runs
from elastic_export.runs import TensorRuns, runs_shape
from elastic_runtime.errors import InputError

#: What slicing never changes: (field, the config's key).
_SHARED = (
    *((axis.field, axis.key) for axis in AXES if not axis.elastic),
    ("epsilon", "layer_norm_epsilon"),
    ("time_step_limit", "time_step_limit"),
)

_CUT = "name the parent that it was cut from, or a checkpoint cut without training"
_SAVED = "cut it again in the parent's dtype"


def derive(
    parent_dir: Path,
    sliced_dirs: Sequence[Path],
    *,
    ignore_tensors: Sequence[str] = (),
    ignore_config: Sequence[str] = (),
    warn: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """The `elastic-budgets/1` document under which our slices of the parent are the given checkpoints.

    Args:
        parent_dir: the elastic parent; it needs no budget file.
        sliced_dirs: cut checkpoints, each a budget named by its folder. The parent itself may be among them.
        ignore_tensors: globs of tensors of any of them that are no part of the model.
        ignore_config: unknown keys of their configs that have no effect on the model.
        warn: told what was left out or ignored in any of them.

    Raises:
        InputError: a checkpoint that is no slice of the parent (naming the tensor that differs), or whose layers can
            be matched in more than one way.
    """
    # Where a cut config gives one width for layers that differ, the shapes decide.
    lenient: dict[str, Any] = {"ignore_tensors": ignore_tensors, "ignore_config": ignore_config}
    parent = Checkpoint.open(parent_dir, require_budgets=False, **lenient)
    cut = [Checkpoint.open(path, require_budgets=False, widths_from_shapes=True, **lenient) for path in sliced_dirs]
    for opened in (parent, *cut):
        for warning in opened.warnings:
            warn(warning if warning.startswith(str(opened.path)) else f"{opened.path}: {warning}")
    budgets = [derive_budget(parent, sliced) for sliced in cut]
    document = budgets_document(parent.architecture, budgets)
    if len(document["budgets"]) != len(budgets):
        names = ", ".join(budget.name for budget in budgets)
        raise InputError(
            "--sliced",
            expected="folders of different names",
            found=names,
            todo="rename one: each folder names its budget",
        )
    found, _ = parse_budgets(document, parent.architecture, subject := "derived budgets")
    check_alignment(subject, parent.architecture, parent.prefix, found, parent.tensors)
    return document


def derive_budget(parent: Checkpoint, sliced: Checkpoint) -> Budget:
    """The budget that gives `sliced`, every tensor of it compared with our slice byte by byte."""
    check_name(str(sliced.path), sliced.name)
    _check_shared(parent, sliced)
    kept = _match_layers(parent, sliced)
    budget = _budget(parent.architecture, sliced, kept)
    _prove(parent, sliced, budget)
    return budget


def _check_shared(parent: Checkpoint, sliced: Checkpoint) -> None:
    theirs, ours = sliced.architecture, parent.architecture
    for field, key in _SHARED:
        if getattr(theirs, field) != getattr(ours, field):
            expected = f"the parent's {getattr(ours, field)}: no budget changes it"
            raise InputError(f"{sliced.path}, {key}", expected=expected, found=str(getattr(theirs, field)), todo=_CUT)
    for axis in (axis for axis in ELASTIC_AXES if not axis.per_layer and axis.groups is None):
        if axis.of(theirs) > axis.of(ours):
            expected = f"at most the parent's {axis.of(ours)}"
            raise InputError(f"{sliced.path}, {axis.key}", expected=expected, found=str(axis.of(theirs)), todo=_CUT)
    if sliced.dtype != parent.dtype:
        expected = f"the parent's dtype {parent.dtype}: equality cannot be proved across a cast"
        raise InputError(str(sliced.path), expected=expected, found=sliced.dtype, todo=_SAVED)


def _match_layers(parent: Checkpoint, sliced: Checkpoint) -> list[int]:
    """The parent layer of each sliced layer: ascending, all tensors byte-equal, and the only such choice."""
    candidates = []
    for index, _, _ in sliced.architecture.layers():
        matches = [j for j, _, _ in parent.architecture.layers() if _layer_equal(parent, sliced, j, index) is None]
        if not matches:
            raise _no_match(parent, sliced, index)
        candidates.append(matches)
    first, last = _earliest(candidates), _latest(candidates)
    if not first or not last:
        shown = ", ".join(f"{i}: {matches}" for i, matches in enumerate(candidates))
        expected, found = "layers in the parent's order", f"matches {shown}"
        raise InputError(f"{sliced.path}, layers", expected=expected, found=found, todo=_CUT)
    for index, (low, high) in enumerate(zip(first, last, strict=True)):
        if low != high:
            expected = "one parent layer that it can be"
            found = f"layers {low} and {high} of the parent, which are equal where this one keeps them: not decidable"
            todo = "write the budget file by hand: skip_layers says which of them goes"
            raise InputError(f"{sliced.path}, layer {index}", expected=expected, found=found, todo=todo)
    return first


def _earliest(candidates: Sequence[Sequence[int]]) -> list[int]:
    """The ascending choice that takes every candidate as early as possible; empty where there is none."""
    chosen: list[int] = []
    for matches in candidates:
        later = [match for match in matches if not chosen or match > chosen[-1]]
        if not later:
            return []
        chosen.append(min(later))
    return chosen


def _latest(candidates: Sequence[Sequence[int]]) -> list[int]:
    mirrored = _earliest([[-match for match in matches] for matches in reversed(candidates)])
    return [-match for match in reversed(mirrored)]


def _layer_equal(parent: Checkpoint, sliced: Checkpoint, theirs: int, ours: int) -> str | None:
    """None where sliced layer `ours` is our slice of parent layer `theirs`, else the first thing that differs."""
    if parent.architecture.pattern[theirs] != sliced.architecture.pattern[ours]:
        return "the kind of layer"
    budget = _layer_budget(parent.architecture, sliced.architecture, theirs, ours)
    if isinstance(budget, str):
        return budget
    lead, own = f"{parent.prefix}.layers.{theirs}.", f"{sliced.prefix}.layers.{ours}."
    runs = tensor_runs(parent.architecture, budget, parent.prefix)
    names = [name for name in runs if name.startswith(lead)]
    for name in sorted(names, key=lambda name: parent.tensors[name].nbytes):  # norms first: they tell layers apart
        if not _tensor_equal(parent, sliced, name, runs[name], own + name.removeprefix(lead)):
            return name
    return None


def _layer_budget(parent: Architecture, sliced: Architecture, theirs: int, ours: int) -> Budget | str:
    """A budget of parent layer `theirs` alone, as wide as sliced layer `ours`; the key of a width that is too large."""
    k, own = _ordinal(parent, theirs), _ordinal(sliced, ours)
    others = tuple(index for index in range(len(parent.pattern)) if index != theirs)
    full = Budget.full(parent, "candidate")
    budget = replace(full, hidden_size=sliced.hidden_size, skip_layers=others)
    for axis in KIND_OF[parent.pattern[theirs]].elastic_axes:
        width = axis.of(sliced, own)
        if width > axis.of(parent, k):
            return axis.key
        value: Any = _with(getattr(full, axis.field), k, width) if axis.per_layer else width
        budget = replace(budget, **{axis.field: value})
    return budget


def _ordinal(architecture: Architecture, layer: int) -> int:
    return architecture.pattern[:layer].count(architecture.pattern[layer])


def _with(widths: tuple[int, ...], index: int, width: int) -> tuple[int, ...]:
    return (*widths[:index], width, *widths[index + 1 :])


def _tensor_equal(parent: Checkpoint, sliced: Checkpoint, name: str, runs: TensorRuns, own: str) -> bool:
    """Whether tensor `own` of `sliced` has the bytes of our slice of the parent's `name`; NaNs and all."""
    theirs, ours = sliced.tensors[own], parent.tensors[name]
    if theirs.dtype != ours.dtype or theirs.shape != runs_shape(runs):
        return False
    row, equal = 0, True
    for block in sliced_blocks(partial(parent.read, name), runs, 16 << 20):
        both = (block, sliced.read(own, slice(row, row + len(block))))
        if both[0].dtype != both[1].dtype:  # one is quantised, and the other was rounded when it was not any more
            both = (convert(both[0], ours.dtype, name), convert(both[1], theirs.dtype, own))
        equal = np.array_equal(_bytes(both[0]), _bytes(both[1]))
        if not equal:
            break
        row += len(block)
    parent.release(name)
    sliced.release(own)
    return equal


def _bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _no_match(parent: Checkpoint, sliced: Checkpoint, index: int) -> InputError:
    """Which layer comes nearest, and the tensor that tells it apart."""
    kind = sliced.architecture.pattern[index]
    reasons: Mapping[int, str | None] = {
        j: _layer_equal(parent, sliced, j, index)
        for j, other, _ in parent.architecture.layers()
        if other.letter == kind
    }
    if not reasons:
        found = f"a layer of kind {kind!r}, of which the parent has none"
    else:
        # Layers are compared smallest tensor first, so the one that fails on the largest tensor got furthest.
        sizes = {j: parent.tensors[r].nbytes if r in parent.tensors else 0 for j, r in reasons.items() if r}
        nearest = max(sizes, key=lambda j: sizes[j])
        found = f"none; the nearest is layer {nearest}, different in {reasons[nearest]}"
    return InputError(
        f"{sliced.path}, layer {index}", expected="the bytes of our slice of a parent layer", found=found, todo=_CUT
    )


def _budget(parent: Architecture, sliced: Checkpoint, kept: Sequence[int]) -> Budget:
    """The budget of the matched layers; a width that no kept layer has stays the parent's."""
    own, full = sliced.architecture, Budget.full(parent, sliced.name)
    widths: dict[str, Any] = {"hidden_size": own.hidden_size}
    for axis, kind in KIND_OF_AXIS.items():
        if axis.elastic and axis.per_layer:
            ordinals = [_ordinal(parent, j) for j in kept if parent.pattern[j] == kind.letter]
            widths[axis.field] = _widths(getattr(full, axis.field), ordinals, getattr(own, axis.field))
        elif axis.elastic and own.count(kind):
            widths[axis.field] = axis.of(own)
    skipped = tuple(sorted(set(range(len(parent.pattern))) - set(kept)))
    return replace(full, skip_layers=skipped, **widths)


def _widths(parent: tuple[int, ...], kept: Sequence[int], own: tuple[int, ...]) -> tuple[int, ...]:
    """Per parent layer of the kind: the kept ones' width; a skipped one follows where all agree, so one number does."""
    if own and len(set(own)) == 1 and own[0] <= min(parent):
        return (own[0],) * len(parent)
    widths = dict(zip(kept, own, strict=True))
    return tuple(widths.get(k, width) for k, width in enumerate(parent))


def _prove(parent: Checkpoint, sliced: Checkpoint, budget: Budget) -> None:
    """Every tensor of the sub-model that `budget` makes is byte-equal, also those that matching did not look at."""
    for name, runs in tensor_runs(parent.architecture, budget, parent.prefix).items():
        renamed = sub_model_name(name, parent.architecture, budget, parent.prefix) or ""
        own = renamed.replace(f"{parent.prefix}.", f"{sliced.prefix}.", 1)
        if not _tensor_equal(parent, sliced, name, runs, own):
            expected = f"the bytes of our slice of the parent's {name!r}"
            raise InputError(f"{sliced.path}, tensor {own!r}", expected=expected, found="others", todo=_CUT)
