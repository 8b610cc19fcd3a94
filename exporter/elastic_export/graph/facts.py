"""What a graph's inputs are: weights with the index runs they keep of the parent's tensor, states, masks.

The facts travel with the model in `model.meta`, keyed by value name, and every pass that changes an input keeps them
true. Runs are (start, count) pairs per axis, ascending; together they say which part of the parent's tensor is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from elastic_export.runs import Runs, TensorRuns, positions, runs_shape
from elastic_runtime.interface import StateKind

_KEY = "elastic_export.facts"


@dataclass(frozen=True)
class WeightSlice:
    """A weight input: the tensor of that name in the parent checkpoint, and the runs kept of each axis."""

    tensor: str
    parent_shape: tuple[int, ...]
    runs: TensorRuns

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the slice."""
        return runs_shape(self.runs)


@dataclass(frozen=True)
class StateSlice:
    """A state: input, paired output, the parent layer it belongs to, and the runs kept of each axis (None: dynamic)."""

    input: str
    output: str
    kind: StateKind
    layer: int
    runs: tuple[Runs | None, ...]

    def index(self, shape: Sequence[int]) -> tuple[np.ndarray, ...]:
        """What to index one sequence's state of the parent with (its shape has no batch axis) to get the kept part."""
        kept = [np.arange(n) if r is None else positions(r) for n, r in zip(shape, self.runs[1:], strict=True)]
        return np.ix_(*kept)


@dataclass
class Facts:
    """The facts of one graph; keys are value names."""

    weights: dict[str, WeightSlice] = field(default_factory=dict)
    states: dict[str, StateSlice] = field(default_factory=dict)
    masks: list[str] = field(default_factory=list)

    def copy(self) -> Facts:
        """A copy whose dictionaries can change without touching this one."""
        return Facts(dict(self.weights), dict(self.states), list(self.masks))


def facts_of(model: ir.Model) -> Facts:
    """The facts of a model that `trace_parent` made."""
    facts = model.meta[_KEY]
    assert isinstance(facts, Facts)
    return facts


def set_facts(model: ir.Model, facts: Facts) -> None:
    """Attach facts to a model."""
    model.meta[_KEY] = facts


def clone_with_facts(model: ir.Model) -> ir.Model:
    """A deep copy of a graph with its own copy of the facts."""
    copy = model.clone()
    set_facts(copy, facts_of(model).copy())
    return copy
