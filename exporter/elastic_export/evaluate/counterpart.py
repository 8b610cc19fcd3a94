"""Quantised sub-models, each beside the same one unquantised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from elastic_export.checkpoint.conversion import convert, stored_dtype
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate.from_checkpoint import Array, SlicedTensors, parent_model, sub_model
from elastic_export.evaluate.sub_model import Quantisation, SubModel
from elastic_export.layers.all_kinds import AXES, ELASTIC_AXES, KIND_OF_AXIS
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.axis import Axis
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits
from elastic_export.layers.kept import slice_array, tensor_runs
from elastic_export.plan.eight_bits import plan_eight_bits, weight_bytes
from elastic_export.runs import TensorRuns, bands_of, runs_shape
from elastic_export.weights.rows_int8 import round_rows
from elastic_runtime.errors import InputError
from elastic_runtime.format.interface import Precision

#: That engines with int8 weights compute in, and what is not quantised is stored in (plan/eight_bits.py).
_PRECISION: Precision = "bf16"
_BAND = 64  # rows of the parent that are rounded at once


@dataclass(frozen=True)
class Counterpart:
    """A quantised sub-model, the same one unquantised, and what both keep of each tensor of the parent, by the
    unquantised one's names.
    """

    quantised: SubModel
    plain: SubModel
    runs: Mapping[str, TensorRuns]


def rounded_models(checkpoint: Checkpoint, models: Sequence[SubModel]) -> list[SubModel]:
    """The same sub-models of the checkpoint with the weights that an export with `--quantize int8` gives them.

    Raises:
        InputError: the checkpoint is of a kind that cannot be quantised so, or has odd sizes alone.
    """
    eight_bits = plan_eight_bits(checkpoint, _PRECISION, "shared", external=False, targets=())
    return [_rounded(checkpoint, model, eight_bits) for model in models]


def _rounded(checkpoint: Checkpoint, model: SubModel, eight_bits: EightBits) -> SubModel:
    budget = budget_of(model, checkpoint.architecture, checkpoint.name)
    nbytes = weight_bytes(checkpoint, budget, _PRECISION, eight_bits)
    return replace(
        model,
        weights=RoundedTensors(checkpoint, budget, eight_bits),
        dtype=_PRECISION,
        dequantised=False,
        quantisation=Quantisation("int8", (_PRECISION, nbytes)),
    )


def counterparts(models: Sequence[SubModel], checkpoint: Checkpoint) -> tuple[list[Counterpart], SubModel]:
    """Quantised sub-models beside the same ones of the checkpoint, and its parent, with which all are compared: one of
    those where a budget keeps all of it.

    Raises:
        InputError: a sub-model is of another parent than the checkpoint's; the budget and the width are named.
    """
    arch, found = checkpoint.architecture, list[Counterpart]()
    for model in models:
        budget = budget_of(model, arch, checkpoint.name)
        runs = tensor_runs(arch, budget, checkpoint.prefix)
        found.append(Counterpart(model, sub_model(checkpoint, budget), runs))
    return found, parent_model(checkpoint, [each.plain for each in found])


class RoundedTensors(SlicedTensors):
    """The tensors of one sub-model (a `WeightSource`) as the file of a parent in eight bits has them, which need not be
    there: rows of the parent are rounded whole, and then cut. Matrices in eight bits come in float32.
    """

    def __init__(self, checkpoint: Checkpoint, budget: Budget, eight_bits: EightBits) -> None:
        super().__init__(checkpoint, budget)
        self._rounded = eight_bits.tensors.keys()

    def cut(self, name: str, runs: TensorRuns) -> Array:
        """See `SlicedTensors`. Raises InputError: a value is not finite; the tensor is named."""
        checkpoint = self._checkpoint
        if name not in self._rounded:
            dtype = stored_dtype(checkpoint.tensors[name].dtype, checkpoint.dtype, _PRECISION)
            return convert(super().cut(name, runs), dtype, name)
        kept, at = np.empty(runs_shape(runs), np.float32), 0
        for first, rows in bands_of(runs[0], _BAND, gap=_BAND):
            values, scales = round_rows(checkpoint.read(name, slice(first, first + sum(rows[-1]))), name)
            worth = slice_array(values, (rows, runs[1])) * slice_array(scales, (rows,))[:, None]
            kept[at : at + len(worth)] = worth
            at += len(worth)
        checkpoint.release(name)
        return kept


def budget_of(model: SubModel, parent: Architecture, name: str) -> Budget:
    """The budget of a parent that a sub-model is; `name` is the parent's.

    Raises:
        InputError: it is none of it.
    """
    subject, todo = f"budget {model.name}", "name the checkpoint that it was quantised from"
    layers = len(parent.pattern)
    kept = "".join(parent.pattern[place] for place in model.layers if place < layers)
    if kept != model.architecture.pattern:
        expected = f"a parent with the layers {model.architecture.pattern} at {list(model.layers)}"
        raise InputError(subject, expected=expected, found=f"{name} with {parent.pattern}", todo=todo)
    skipped = tuple(place for place in range(layers) if place not in model.layers)
    widths = {axis.field: _widths(axis, model.architecture, parent, skipped) for axis in ELASTIC_AXES}
    budget = Budget(model.name, skip_layers=skipped, **widths)
    wider = [axis.field for axis in ELASTIC_AXES if np.any(np.array(widths[axis.field]) > getattr(parent, axis.field))]
    for field in (*wider, *_differing(model.architecture, budget.architecture(parent))):
        mine, theirs = getattr(model.architecture, field), getattr(parent, field)
        raise InputError(
            subject, expected=f"{field} {mine}, or what is cut to it", found=f"{theirs} in {name}", todo=todo
        )
    return budget


def _widths(axis: Axis, model: Architecture, parent: Architecture, skipped: tuple[int, ...]) -> Any:
    """The sub-model's widths of an axis, indexed as the parent's where there is one a layer."""
    mine, theirs = getattr(model, axis.field), getattr(parent, axis.field)
    if not axis.per_layer:
        return mine
    own = iter(mine)
    ordinals = (layer for layer in parent.layers() if layer.kind is KIND_OF_AXIS[axis])
    return tuple(theirs[layer.ordinal] if layer.index in skipped else next(own) for layer in ordinals)


def _differing(model: Architecture, expected: Architecture) -> list[str]:
    """The fields in which two architectures are different. Of numbers a model file holds float32."""
    fields = [axis.field for axis in AXES if getattr(model, axis.field) != getattr(expected, axis.field)]
    for field in ("epsilon", "time_step_limit"):
        mine, theirs = np.atleast_1d(getattr(model, field)), np.atleast_1d(getattr(expected, field))
        fields += [] if np.allclose(mine, theirs, rtol=1e-6, atol=0) else [field]
    return fields
