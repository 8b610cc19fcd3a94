"""Small questions to a graph and edits of it, for rules, lowerings and passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from elastic_runtime.errors import InternalError


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """The data of an initializer, or None for anything computed or fed."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return value.const_value.numpy()


def static_shape(value: ir.Value) -> tuple[int | None, ...]:
    """Shape with None for dynamic axes; every value of our graphs has one."""
    assert value.shape is not None, value.name
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def fixed_dim(value: ir.Value, axis: int) -> int:
    """The size of an axis that must not be dynamic."""
    size = static_shape(value)[axis]
    assert size is not None, (value.name, axis)
    return size


def operand(node: ir.Node, index: int) -> ir.Value:
    """An input that must be there."""
    value = node.inputs[index]
    assert value is not None, (node.name, index)
    return value


def int_attribute(node: ir.Node, name: str) -> int:
    """An integer attribute that must be there."""
    return int(node.attributes[name].as_int())


def set_ints(node: ir.Node, **values: int) -> None:
    """Set integer attributes."""
    for name, value in values.items():
        node.attributes[name] = ir.AttrInt64(name, value)


def replace_uses(old: ir.Value, new: ir.Value) -> None:
    """Every reader of `old`, graph outputs included, reads `new`; an output keeps its name."""
    if old.is_graph_output():
        new.name, old.name = old.name, None
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def initializer(graph: ir.Graph, name: str, data: np.ndarray) -> ir.Value:
    """A new constant of a graph."""
    tensor = ir.tensor(data, name=name)
    value = ir.Value(name=name, shape=ir.Shape(data.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def node_error(node: ir.Node, *, expected: str, found: str) -> InternalError:
    """An error that names the node a pass stumbled over."""
    op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return InternalError(f"node {node.name} ({op})", expected=expected, found=found)


class Inserter:
    """Adds nodes before a given node of a graph; constants become initializers, equal ones are shared."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph, self._prefix, self._count = graph, prefix, 0
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], ir.Value] = {}

    def _fresh(self) -> str:
        self._count += 1
        return f"{self._prefix}.{self._count}"

    def constant(self, data: np.ndarray) -> ir.Value:
        """An initializer with this data."""
        key = (str(data.dtype), data.tobytes(), data.shape)
        if key not in self._constants:
            self._constants[key] = initializer(self._graph, self._fresh(), data)
        return self._constants[key]

    def ints(self, *values: int) -> ir.Value:
        """An int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def op(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        dtype: ir.DataType,
        shape: Sequence[int | str | ir.SymbolicDim],
        **attributes: int | float | str | Sequence[int],
    ) -> ir.Value:
        """A new standard node before `before`; returns its one output."""
        node = ir.node(op_type, inputs, attributes=attributes or None, name=self._fresh())
        output = node.outputs[0]
        output.name, output.type, output.shape = f"{node.name}.out", ir.TensorType(dtype), ir.Shape(list(shape))
        self._graph.insert_before(before, node)
        return output
