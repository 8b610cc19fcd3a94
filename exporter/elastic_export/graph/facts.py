"""What a graph's inputs are: weights with the index runs they keep of the parent's tensors, states, masks.

The facts travel with the model in `model.meta`, keyed by value name, and every pass that changes an input keeps them
true. Runs are (start, count) pairs per axis, ascending; together they say which part of the parent's tensor is meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
import onnx_ir as ir

from elastic_export.runs import Runs, TensorRuns, chosen_runs, full_runs, positions, runs_shape
from elastic_runtime.errors import InternalError
from elastic_runtime.format.interface import StateKind
from elastic_runtime.format.slicing import Window, joined_shape, windows_of

_KEY = "elastic_export.facts"


@dataclass(frozen=True)
class TensorSlice:
    """The tensor of that name in the parent checkpoint, and the runs kept of each axis."""

    tensor: str
    parent_shape: tuple[int, ...]
    runs: TensorRuns

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the slice."""
        return runs_shape(self.runs)

    @property
    def whole(self) -> bool:
        """Whether it keeps everything."""
        return self.runs == full_runs(self.parent_shape)

    def cut(self, keep: Sequence[np.ndarray]) -> TensorSlice:
        """What stays of it. `keep`: per axis, one boolean for each index of the slice."""
        return replace(self, runs=tuple(chosen_runs(runs, k) for runs, k in zip(self.runs, keep, strict=True)))


class Form(Enum):
    """What an input has of a weight's tensors, matrices [N, K] where they are not whole.

    WHOLE: their values. EIGHT_BITS: the rows divided by their scales, int8 [N, K]. EIGHT_BITS_TRANSPOSED: that as
    [K, N]. SCALES: the scales of the rows, float32 [N].
    """

    WHOLE = "whole"
    EIGHT_BITS = "eight bits"
    EIGHT_BITS_TRANSPOSED = "eight bits, transposed"
    SCALES = "scales"


@dataclass(frozen=True)
class Weight:
    """A weight input: slices of the parent's tensors, laid one behind the other along `axis`, in some `form`.

    One slice is the ordinary case, several are a weight that a pass has merged: the projections of queries, keys and
    values in one matrix, say. Nothing ties the input's name to those of its tensors. Parts, axis and windows are
    always those of the parent's tensors as the checkpoint lays them; `shape` is the input's.

    Raises InternalError where the parts are none or do not fit together.
    """

    parts: tuple[TensorSlice, ...]
    axis: int = 0
    form: Form = Form.WHOLE

    def __post_init__(self) -> None:
        shapes = [part.shape for part in self.parts]
        if joined_shape(shapes, self.axis) is None:
            names = " and ".join(part.tensor for part in self.parts)
            expected = f"tensors that agree on all axes but {self.axis}"
            found = " and ".join(map(str, shapes)) or "none"
            raise InternalError(f"weight of {names or 'no tensor'}", expected=expected, found=found)

    @classmethod
    def of(cls, tensor: str, shape: Sequence[int]) -> Weight:
        """A tensor as the parent has it."""
        return cls((TensorSlice(tensor, tuple(shape), full_runs(shape)),))

    @property
    def windows(self) -> tuple[Window, ...]:
        """Where each part lies among all of them."""
        return windows_of([part.shape for part in self.parts], self.axis)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the input."""
        whole = self.windows[0].shape
        return {Form.EIGHT_BITS_TRANSPOSED: whole[::-1], Form.SCALES: whole[:1]}.get(self.form, whole)

    def cut(self, keep: Sequence[np.ndarray]) -> Weight:
        """What stays of it; a part of which nothing stays along `axis` goes, as long as another stays.

        `keep`: per axis of the input, one boolean for each index. Along `axis` every part has its own, on the other
        axes all parts keep the same.
        """
        parts = list[TensorSlice]()
        for part, window in zip(self.parts, self.windows, strict=True):
            mine = keep[self.axis][window.first : window.first + window.size]
            if mine.any():
                parts.append(part.cut([*keep[: self.axis], mine, *keep[self.axis + 1 :]]))
        return replace(self, parts=tuple(parts))


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

    weights: dict[str, Weight] = field(default_factory=dict)
    states: dict[str, StateSlice] = field(default_factory=dict)
    masks: list[str] = field(default_factory=list)

    def tensors(self) -> list[str]:
        """Names of the parent's tensors that the weights are made of."""
        return [part.tensor for part in tensor_slices(self.weights.values())]

    def copy(self) -> Facts:
        """A copy whose dictionaries can change without touching this one."""
        return Facts(dict(self.weights), dict(self.states), list(self.masks))


def tensor_slices(weights: Iterable[Weight]) -> list[TensorSlice]:
    """All parts of all weights, in order."""
    return [part for weight in weights for part in weight.parts]


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
