"""The sub-models of a checkpoint, sliced out of its shards tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_export.checkpoint.budgets import select_budgets
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate.sub_model import Quantisation, SubModel
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import tensor_runs
from elastic_export.runs import TensorRuns, runs_shape

Array = npt.NDArray[Any]
#: What the parent is called where no budget of its file is all of it; no budget can have that name.
PARENT = "(parent)"


class SlicedTensors:
    """The tensors of one sub-model (a `WeightSource`); copies, so that pages of the shards can be given back."""

    def __init__(self, checkpoint: Checkpoint, budget: Budget, *, last: bool = False) -> None:
        self._checkpoint = checkpoint
        self._runs = tensor_runs(checkpoint.architecture, budget, checkpoint.prefix, last=last)

    @property
    def names(self) -> frozenset[str]:
        """Of all kept tensors."""
        return frozenset(self._runs)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one, without reading it."""
        return runs_shape(self._runs[name])

    def load(self, name: str) -> Array:
        """One tensor, as it is stored; a quantised matrix in float32."""
        return self.cut(name, self._runs[name])

    def rows(self, name: str, first: int, count: int, axis: int = 0) -> Array:
        """Indices of an axis that is kept whole."""
        runs = list(self._runs[name])
        runs[axis] = ((first, count),)
        return self.cut(name, tuple(runs))

    def cut(self, name: str, runs: TensorRuns) -> Array:
        """Any part of the parent's tensor."""
        found = self._checkpoint.cut(name, runs)
        copied = found if found.flags.writeable else np.array(found)
        self._checkpoint.release(name)
        return copied


def checkpoint_models(checkpoint: Checkpoint, request: str) -> tuple[list[SubModel], SubModel]:
    """The sub-models that `request` (`all` or names) asks for, and the parent, which they are compared with.

    The parent is one of them where a budget that is asked for keeps all of it, and alone where there are no budgets.

    Raises:
        InputError: see `select_budgets`.
    """
    asked = select_budgets(checkpoint.budgets, request) if checkpoint.budgets else []
    models = [sub_model(checkpoint, budget) for budget in asked]
    parent = parent_model(checkpoint, models)
    return models or [parent], parent


def parent_model(checkpoint: Checkpoint, models: Iterable[SubModel]) -> SubModel:
    """The parent: one of `models` that is all of it, else one under the name of the budget that keeps all of it."""
    arch = checkpoint.architecture
    names = [budget.name for budget in checkpoint.budgets.values() if budget == Budget.full(arch, budget.name)]
    full = Budget.full(arch, names[0] if names else PARENT)
    same = (model for model in models if model.architecture == arch)
    return next(same, None) or sub_model(checkpoint, full)


def sub_model(checkpoint: Checkpoint, budget: Budget, *, last: bool = False) -> SubModel:
    """One sub-model of a checkpoint; `last`: see `layers.axis.kept_of`."""
    arch = checkpoint.architecture
    return SubModel(
        budget.name,
        budget.architecture(arch),
        budget.kept_layers(arch),
        checkpoint.prefix,
        checkpoint.dtype,
        SlicedTensors(checkpoint, budget, last=last),
        bool(checkpoint.formats),
        Quantisation("+".join(checkpoint.formats)) if checkpoint.formats else None,
    )
