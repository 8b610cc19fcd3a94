"""Liveness rules of the standard ops that the parent graph holds."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from elastic_export.graph.lattices import Axis, Liveness
from elastic_export.graph.rule import Rule
from elastic_export.graph.values import node_error, operand, static_shape


class Elementwise(Rule):
    """Ops on broadcast operands. `absorbing`: one zero operand makes the result zero (Mul); else all must be (Add).

    0·b = 0 for every finite b, and 0 + 0 = 0: nothing less is known of a channel. Element i of the result reads element
    i of each operand and no other, so operands and result keep the same channels.
    """

    def __init__(self, *, absorbing: bool) -> None:
        self._absorbing = absorbing

    def zeros(self, node: ir.Node, live: Liveness) -> None:
        """Channel by channel; a broadcast operand is zero on an axis only where the whole of it is."""
        output = node.outputs[0]
        axes: list[Axis] = []
        for axis, dim in enumerate(static_shape(output)):
            known = [_broadcast_zero(live, operand(node, i), axis, output) for i in range(len(node.inputs))]
            combine = np.logical_or if self._absorbing else np.logical_and
            axes.append(None if dim is None else combine.reduce([np.broadcast_to(k, dim) for k in known]))
        live.set_zero(output, axes)

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """Operands and result keep the same channels."""
        output = node.outputs[0]
        for value in node.inputs:
            assert value is not None
            live.reach(value)
            offset = len(static_shape(output)) - len(static_shape(value))
            for axis, dim in enumerate(static_shape(value)):
                if dim == 1 and static_shape(output)[axis + offset] != 1:
                    live.require(value, axis, np.ones(1, dtype=bool))
                else:
                    live.tie(value, axis, output, axis + offset)


def _broadcast_zero(live: Liveness, value: ir.Value, axis: int, output: ir.Value) -> np.ndarray:
    """Zeros of an operand as the result's axis sees them; one flag where it is broadcast or dynamic."""
    own = axis - (len(static_shape(output)) - len(static_shape(value)))
    known = live.zero(value)[own] if own >= 0 else None
    if known is None or known.size != static_shape(output)[axis]:
        return np.array([live.is_zero(value)])
    return known


class Unary(Rule):
    """An op on each element alone. `keeps_zero`: f(0) = 0, as relu has it; of another f a zero says nothing."""

    def __init__(self, *, keeps_zero: bool) -> None:
        self._keeps_zero = keeps_zero

    def zeros(self, node: ir.Node, live: Liveness) -> None:
        """The input's zeros, where f(0) = 0."""
        if self._keeps_zero:
            live.set_zero(node.outputs[0], list(live.zero(operand(node, 0))))

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """Input and output keep the same channels."""
        live.reach(operand(node, 0))
        for axis in range(len(static_shape(node.outputs[0]))):
            live.tie(operand(node, 0), axis, node.outputs[0], axis)


class Transpose(Rule):
    """A permutation of axes."""

    def zeros(self, node: ir.Node, live: Liveness) -> None:
        """The input's, permuted."""
        known = live.zero(operand(node, 0))
        live.set_zero(node.outputs[0], [known[axis] for axis in _permutation(node)])

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """The output's, permuted back."""
        live.reach(operand(node, 0))
        for axis, source in enumerate(_permutation(node)):
            live.tie(operand(node, 0), source, node.outputs[0], axis)


def _permutation(node: ir.Node) -> list[int]:
    rank = len(static_shape(operand(node, 0)))
    attribute = node.attributes.get("perm")
    return list(reversed(range(rank))) if attribute is None else [int(axis) for axis in attribute.as_ints()]


class MatMul(Rule):
    """x [..., K] times a matrix [K, N]. A channel of K may go where it is zero on either side.

    y_n = Σ_k x_k·W_kn: a term with x_k = 0 or W_kn = 0 for all n adds nothing, whatever the other factor is, and
    leaving it out changes no sum. Both sides must leave out the same k.
    """

    def zeros(self, node: ir.Node, live: Liveness) -> None:
        """Leading axes of x, columns of the matrix; all of it where every product is zero."""
        x, matrix = self._operands(node)
        lead, (inner, columns) = live.zero(x)[:-1], live.zero(matrix)
        assert columns is not None
        live.set_zero(node.outputs[0], [*lead, columns | bool(np.all(_either(live.zero(x)[-1], inner)))])

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """K: the channels not known to be zero. Other axes: what the result needs."""
        (x, matrix), output = self._operands(node), node.outputs[0]
        last = len(static_shape(x)) - 1
        nonzero = ~_either(live.zero(x)[-1], live.zero(matrix)[0])
        live.require(x, last, nonzero)
        live.require(matrix, 0, nonzero)
        live.tie(x, last, matrix, 0)
        live.tie(matrix, 1, output, last)
        for axis in range(last):
            live.tie(x, axis, output, axis)

    @staticmethod
    def _operands(node: ir.Node) -> tuple[ir.Value, ir.Value]:
        x, matrix = operand(node, 0), operand(node, 1)
        if len(static_shape(matrix)) != 2 or static_shape(x)[-1] is None or None in static_shape(matrix):
            raise node_error(node, expected="a matrix of fixed shape on the right", found=f"{matrix.shape}")
        return x, matrix


def _either(a: Axis, b: Axis) -> np.ndarray:
    assert a is not None
    assert b is not None
    return a | b


class Gather(Rule):
    """Rows of a table by computed indices: any row may be asked for, the other axes pass through.

    An index is known when the graph runs, so no row may go and none is known to be zero.
    """

    def zeros(self, node: ir.Node, live: Liveness) -> None:
        """Those of the table's other axes."""
        table, indices = self._operands(node)
        unknown: list[Axis] = [None if d is None else np.zeros(d, bool) for d in static_shape(indices)]
        live.set_zero(node.outputs[0], [*unknown, *live.zero(table)[1:]])

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """All rows; what the result needs of the other axes."""
        table, indices = self._operands(node)
        live.require_all(indices)
        rows = live.need(table)[0]
        assert rows is not None
        live.require(table, 0, np.ones_like(rows))
        offset = len(static_shape(indices)) - 1
        for axis in range(1, len(static_shape(table))):
            live.tie(table, axis, node.outputs[0], axis + offset)
        for axis in range(len(static_shape(indices))):
            live.tie(indices, axis, node.outputs[0], axis)

    @staticmethod
    def _operands(node: ir.Node) -> tuple[ir.Value, ir.Value]:
        axis = node.attributes.get("axis")
        if axis is not None and axis.as_int() != 0:
            raise node_error(node, expected="a gather of rows (axis 0)", found=f"axis {axis.as_int()}")
        return operand(node, 0), operand(node, 1)


STANDARD_RULES: dict[str, Rule] = {
    "Add": Elementwise(absorbing=False),
    "Mul": Elementwise(absorbing=True),
    "Relu": Unary(keeps_zero=True),
    "Transpose": Transpose(),
    "MatMul": MatMul(),
    "Gather": Gather(),
}
