"""What is known of every value, axis by axis: which channels are zero, and which are needed.

`zero[v][a][c]` true: every element of v whose index on axis a is c is zero, whatever the inputs (forward knowledge).
`need[v][a][c]` true: channel c of axis a must stay (backward demand; it only grows). Axes of dynamic size hold None:
nothing is known of them and all of them stays. A value is cut to its needed channels at the end.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from elastic_export.graph.values import constant_of, static_shape

Axis = np.ndarray | None
AxisSets = list[Axis]


class Liveness:
    """The two lattices over the values of one graph."""

    def __init__(self) -> None:
        self._zero: dict[ir.Value, AxisSets] = {}
        self._need: dict[ir.Value, AxisSets] = {}
        self.reached: set[ir.Value] = set()
        self.changed = False

    def zero(self, value: ir.Value) -> AxisSets:
        """Channels known to be zero; those of a constant are read off its data."""
        if value not in self._zero:
            data = constant_of(value)
            self._zero[value] = _blank(value) if data is None else _zeros_of(data)
        return self._zero[value]

    def set_zero(self, value: ir.Value, axes: AxisSets) -> None:
        """Record forward knowledge of a node's output. All channels of one axis zero means all is zero."""
        if any(axis is not None and axis.all() for axis in axes):
            axes = [None if axis is None else np.ones_like(axis) for axis in axes]
        self._zero[value] = axes

    def is_zero(self, value: ir.Value) -> bool:
        """Whether the whole value is known to be zero."""
        return any(axis is not None and axis.size > 0 and bool(axis.all()) for axis in self.zero(value))

    def need(self, value: ir.Value) -> AxisSets:
        """Channels demanded so far."""
        return self._need.setdefault(value, _blank(value))

    def reach(self, value: ir.Value) -> None:
        """Somebody reads the value at all (its dynamic axes, if nothing else)."""
        if value not in self.reached:
            self.reached.add(value)
            self.changed = True

    def require(self, value: ir.Value, axis: int, channels: np.ndarray) -> None:
        """Demand channels of one axis."""
        self.reach(value)
        have = self.need(value)[axis]
        if have is not None and bool((channels & ~have).any()):
            have |= channels
            self.changed = True

    def require_all(self, value: ir.Value) -> None:
        """Demand everything of a value."""
        self.reach(value)
        for axis, have in enumerate(self.need(value)):
            if have is not None:
                self.require(value, axis, np.ones_like(have))

    def tie(self, a: ir.Value, axis_a: int, b: ir.Value, axis_b: int) -> None:
        """Two axes must keep the same channels: each takes over what the other needs.

        Needs only grow, so the union of both is the least set that serves both; a zero-set is no part of it, for a
        channel that nobody needs may go whatever it holds.
        """
        need_a, need_b = self.need(a)[axis_a], self.need(b)[axis_b]
        if need_a is not None and need_b is not None:
            self.require(a, axis_a, need_b)
            self.require(b, axis_b, need_a)


def known(axis: Axis) -> np.ndarray:
    """What is recorded of an axis that must have a fixed size."""
    assert axis is not None
    return axis


def _blank(value: ir.Value) -> AxisSets:
    return [None if dim is None else np.zeros(dim, dtype=bool) for dim in static_shape(value)]


def _zeros_of(data: np.ndarray) -> AxisSets:
    zero = data == 0
    return [zero.all(axis=tuple(other for other in range(data.ndim) if other != axis)) for axis in range(data.ndim)]
