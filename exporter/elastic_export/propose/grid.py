"""The sub-models that are proposed from: widths in whole units, layers in the order in which they leave.

Kernels and engines set the units. Channels go in powers of two from 8, a 16-byte load of BF16, to 64, a tile of a
product on tensor cores: the largest of which the parent has 32, so that small models still have a choice. Heads go as
the layer kinds say: all SSM groups, or all KV heads, lose one at a time (`Axis.step`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import starmap
from typing import Any

from elastic_export.layers.all_kinds import ELASTIC_AXES, KIND_OF_AXIS
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.axis import Axis, shape_of
from elastic_export.layers.budget import Budget
from elastic_export.plan.limits import check_plugins
from elastic_export.products import TENSORRT_RTX
from elastic_runtime.errors import InputError
from elastic_runtime.format.interface import Precision

_UNITS = (64, 32, 16, 8)
_CHOICES = 32  # units of an axis that is cut in units of more than 8
#: Parts of an axis, or of the layers of a kind, of which proposals keep at least one. Below them no axis is measured,
#: and nothing says that a sub-model still speaks.
_LEAST_WIDTH, _LEAST_LAYERS = 4, 2


@dataclass(frozen=True)
class Point:
    """One sub-model: `counts` are the units that it keeps of each axis of the grid, `skipped` the layers that it
    leaves out.
    """

    counts: tuple[int, ...]
    skipped: frozenset[int] = frozenset()

    def within(self, larger: Point) -> bool:
        """Whether it is nested in another one."""
        counts = zip(self.counts, larger.counts, strict=True)
        return self.skipped >= larger.skipped and all(mine <= theirs for mine, theirs in counts)


class Grid:
    """All points of a parent.

    Its dimensions are the axes and, last of all, depth: there a step down leaves out the next layer of the order.

    Attributes:
        parent: the model that is cut.
        axes: that its layers have and that can be cut, in the order of the budget file.
        whole: the point that is the parent.
        least: the units that a point keeps of each axis at least.
        order: the layers that may leave, the first one first. It can be set once they have been measured.

    Args:
        parent: the model that is cut.
        precision: of the engines that are meant: their kernels must take every point where they take the parent.
    """

    def __init__(self, parent: Architecture, precision: Precision) -> None:
        self.parent, self._precision = parent, precision
        present = [axis for axis in ELASTIC_AXES if axis not in KIND_OF_AXIS or parent.count(KIND_OF_AXIS[axis])]
        self._units = {axis: _unit(axis, parent) for axis in present}
        self.axes = tuple(axis for axis in present if self._most(axis) > 1)
        self._fields: dict[tuple[int, int], tuple[str, Any]] = {}
        self.whole = Point(tuple(self._most(axis) for axis in self.axes))
        self.least = tuple(self._least(place) for place in range(len(self.axes)))
        self.order: tuple[int, ...] = ()

    @property
    def dimensions(self) -> range:
        """Of a point; the last one is depth."""
        return range(len(self.axes) + 1)

    @property
    def depth(self) -> int:
        """The last dimension."""
        return len(self.axes)

    @property
    def smallest(self) -> Point:
        """The point with the least of everything, whatever the order: of each kind the largest layers are gone."""
        sizes = Counter[int]()
        for stored in self.parent.tensors():
            if stored.layer is not None:
                sizes[stored.layer.index] += math.prod(shape_of(stored.tensor.axes, self.parent, stored.layer.ordinal))
        largest = [layer for layer, _ in sizes.most_common()]
        return Point(self.least, frozenset(self._leaving(frozenset(), len(largest), largest)))

    def name_of(self, dimension: int) -> str:
        """As budget files name it."""
        return "skip_layers" if dimension == self.depth else self.axes[dimension].key

    def budget(self, point: Point, name: str = "proposed") -> Budget:
        """The budget that a point is. Of layers that differ in width each keeps its share, rounded to units."""
        widths = dict(starmap(self._field, enumerate(point.counts)))
        return replace(Budget.full(self.parent, name), skip_layers=tuple(sorted(point.skipped)), **widths)

    def architecture(self, point: Point) -> Architecture:
        """The sub-model."""
        return self.budget(point).architecture(self.parent)

    def room(self, point: Point, dimension: int, within: Point) -> int:
        """How many steps it can go up there, staying inside a larger one."""
        if dimension == self.depth:
            return len(point.skipped - within.skipped)
        return within.counts[dimension] - point.counts[dimension]

    def moved(self, point: Point, dimension: int, by: int) -> Point | None:
        """The point so many steps up (down where negative); None where the grid ends before."""
        if dimension != self.depth:
            count = point.counts[dimension] + by
            if not self.least[dimension] <= count <= self.whole.counts[dimension]:
                return None
            return Point((*point.counts[:dimension], count, *point.counts[dimension + 1 :]), point.skipped)
        if by >= 0:
            back = [layer for layer in reversed(self.order) if layer in point.skipped][:by]
            return Point(point.counts, point.skipped.difference(back)) if len(back) == by else None
        gone = list(self._leaving(point.skipped, -by, self.order))
        return Point(point.counts, point.skipped.union(gone)) if len(gone) == -by else None

    def first(self, count: int) -> frozenset[int]:
        """The layers that leave first, as many as may of those."""
        return frozenset(self._leaving(frozenset(), count, self.order))

    def may_skip(self, layers: frozenset[int]) -> bool:
        """Whether enough of each kind stay."""
        left = self._left(layers)
        return all(left[letter] >= least for letter, least in self._kept_layers.items())

    def _leaving(self, skipped: frozenset[int], count: int, order: Sequence[int]) -> Iterator[int]:
        left = self._left(skipped)
        for layer in order:
            letter = self.parent.pattern[layer]
            if count and layer not in skipped and left[letter] > self._kept_layers[letter]:
                left[letter] -= 1
                count -= 1
                yield layer

    def _left(self, skipped: frozenset[int]) -> Counter[str]:
        """How many layers of each kind stay."""
        return Counter(letter for index, letter in enumerate(self.parent.pattern) if index not in skipped)

    @cached_property
    def _kept_layers(self) -> dict[str, int]:
        return {letter: -(-count // _LEAST_LAYERS) for letter, count in Counter(self.parent.pattern).items()}

    def _most(self, axis: Axis) -> int:
        return -(-max(_sizes(axis, self.parent)) // self._units[axis])

    def _field(self, place: int, count: int) -> tuple[str, Any]:
        """Of a budget that keeps so many units of an axis. A search asks for the same few thousands of times."""
        if (place, count) not in self._fields:
            axis = self.axes[place]
            sizes, most, unit = _sizes(axis, self.parent), self._most(axis), self._units[axis]
            kept = sizes if count == most else tuple(min(n, unit * max(1, n // unit * count // most)) for n in sizes)
            self._fields[place, count] = axis.field, kept if axis.per_layer else kept[0]
        return self._fields[place, count]

    def _least(self, place: int) -> int:
        """The fewest units with which kernels and engines take the model as they take the parent."""
        most = self.whole.counts[place]
        for count in range(-(-most // _LEAST_WIDTH), most):
            point = replace(self.whole, counts=(*self.whole.counts[:place], count, *self.whole.counts[place + 1 :]))
            if self._kernels(self.architecture(point)) == self._kernels(self.parent):
                return count
        return most

    def _kernels(self, arch: Architecture) -> tuple[bool, bool]:
        """Whether plugins take a model, and whether its attention is fused."""
        fused = TENSORRT_RTX.fuses_attention(self._precision, arch.attention_heads, arch.attention_head_dim)
        try:
            check_plugins(arch, self._precision)
        except InputError:
            return False, fused
        return True, fused


def _sizes(axis: Axis, arch: Architecture) -> Sequence[int]:
    value = getattr(arch, axis.field)
    return tuple(value) if axis.per_layer else (value,)


def _unit(axis: Axis, parent: Architecture) -> int:
    if axis.groups is not None:
        return axis.step(parent)
    most = max(_sizes(axis, parent))
    fitting = [unit for unit in _UNITS if most >= _CHOICES * unit]
    least = _UNITS[-1] if most >= 2 * _UNITS[-1] else 1
    return fitting[0] if fitting else least
