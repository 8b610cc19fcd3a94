"""The axes that the tensors of a model span, and what a budget keeps of them.

A tensor's axis is an `Extent`: spans laid one after the other, each the outer product of axes with the last one
fastest. The rows of a Mamba-2 layer's `in_proj` are heads x channels (z), heads x channels (x), B and C, heads (dt).
Shapes are the extents' sizes, masks are what is kept of them as ones and zeros, and slices the same as runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

Kept = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Axis:
    """A width of a model, named as `Architecture` and `Budget` name it.

    Every elastic axis is sorted by importance, so a budget keeps a prefix: of the whole axis, or inside each of its
    groups (a flat prefix of heads would break the map from heads to groups).

    Attributes:
        field: of `Architecture`, and of `Budget` where `elastic`: an int, or with `per_layer` a tuple with one entry a
            layer of the kind.
        names: keys in `config.json`, the first one also in budget files; where several are present they must agree.
        elastic: whether a budget may keep less than all of it.
        per_layer: whether it may differ from layer to layer of the kind.
        groups: the axis that counts its groups, None where it has none.
        called: its members in words, such as `SSM groups`; for errors about what must divide by them.
        least: the smallest length that is supported, and why it is not 1.
    """

    field: str
    names: tuple[str, ...]
    elastic: bool = False
    per_layer: bool = False
    groups: Axis | None = None
    called: str = ""
    least: tuple[int, str] = (1, "")

    @property
    def key(self) -> str:
        """Its name in budget files and in the configs that we write."""
        return self.names[0]

    def of(self, widths: Any, ordinal: int = 0) -> int:
        """Length in an architecture or a budget, in the ordinal-th layer of the kind."""
        value = getattr(widths, self.field)
        return int(value[ordinal] if self.per_layer else value)

    def step(self, model: Any) -> int:
        """What its length must divide by: the number of its groups."""
        return 1 if self.groups is None else self.groups.of(model)


@dataclass(frozen=True)
class Less:
    """An axis with some indices fewer, of which a budget keeps all: the K - 1 taps that a convolution remembers."""

    axis: Axis
    fewer: int

    def of(self, widths: Any, ordinal: int = 0) -> int:
        """Length, as `Axis.of` says it."""
        return self.axis.of(widths, ordinal) - self.fewer


@dataclass(frozen=True)
class One:
    """An axis of length one."""

    def of(self, widths: Any, ordinal: int = 0) -> int:
        """Its length."""
        return 1


Factor = Axis | Less | One
#: An outer product of axes, the last one fastest.
Span = tuple[Factor, ...]
#: Spans one after the other: one axis of a tensor.
Extent = tuple[Span, ...]


def extent(*factors: Factor) -> Extent:
    """The extent of one span."""
    return (factors,)


def size_of(axis: Extent, model: Any, ordinal: int = 0) -> int:
    """Number of indices in the ordinal-th layer of the kind."""
    total = 0
    # Plain loops, here and around this function in Architecture._elements: sum and math.prod take more than twice the
    # time, and a search for budgets asks for the sizes of thousands of models.
    for span in axis:
        length = 1
        for factor in span:
            length *= factor.of(model, ordinal)
        total += length
    return total


def kept_of(axis: Extent, parent: Any, budget: Any, ordinal: int = 0, *, last: bool = False) -> Kept:
    """Which indices of the parent's axis a budget keeps: [size], true where it does.

    `last` keeps as many, but the last of each axis, or of each of its groups, in place of the first: what no budget
    does, to see whether an axis is sorted.
    """
    # Groups are alike and outer products mirror with their factors, so a span backwards has the last for the first.
    kept = [_kept_span(span, parent, budget, ordinal) for span in axis]
    return np.concatenate([span[::-1] if last else span for span in kept])


def shape_of(axes: Sequence[Extent], model: Any, ordinal: int = 0) -> tuple[int, ...]:
    """Shape of a tensor of these axes."""
    return tuple(size_of(axis, model, ordinal) for axis in axes)


def _kept_span(span: Span, parent: Any, budget: Any, ordinal: int) -> Kept:
    kept = [_kept_factor(factor, parent, budget, ordinal) for factor in span]
    return reduce(lambda outer, inner: np.logical_and.outer(outer, inner).reshape(-1), kept)


def _kept_factor(factor: Factor, parent: Any, budget: Any, ordinal: int) -> Kept:
    """A prefix of each group: the first kept/groups of its size/groups members."""
    size = factor.of(parent, ordinal)
    if not isinstance(factor, Axis) or not factor.elastic:
        return np.ones(size, bool)
    groups = factor.step(parent)
    return np.tile(np.arange(size // groups) < factor.of(budget, ordinal) // groups, groups)
