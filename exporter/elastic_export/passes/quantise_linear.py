"""Pass: quantise linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from elastic_export.graph.facts import Facts, Form, Weight, facts_of
from elastic_export.graph.values import (
    Inserter,
    fixed_dim,
    initializer,
    int_attribute,
    node_error,
    operand,
    replace_uses,
)
from elastic_export.layers.eight_bits import EightBitMatrix, EightBits
from elastic_export.passes.base import GraphPass
from elastic_runtime.errors import InternalError

FLOAT, INT8 = ir.DataType.FLOAT, ir.DataType.INT8
#: What an int8 value is of its row's scale as it is stored: a power of two, so that no narrow type rounds it, and not
#: one, which TensorRT-RTX takes for a mere conversion and then materialises the weight.
UNIT = 2.0**-7
#: Where the row's scale is applied: to the product in float32, or to the weight before it.
ScaleOn = Literal["product", "weight"]


class QuantiseLinear(GraphPass):
    """From products with weights [N, K] to products with int8 weights [K, N] and a scale a row, as the parent's file in
    eight bits has them.

    1. The products of one `EightBitMatrix` read the same activations and become one, with a `Split` behind it.
    2. `DequantizeLinear` by the constant 2^-7, then `Gemm` without transposition: TensorRT-RTX makes one kernel of
       them. Every node has a constant of its own: one that serves many layers was seen to crash its compiler.
    3. The product times the scales, in float32, then in the model's dtype; where it is only cast to float32 anyway, as
       logits are, it is not rounded in between.
    4. `Gather` from an int8 table takes its rows' scales along.
    5. With `scale_on="weight"` the scale goes into `DequantizeLinear` and nothing follows the product: fewer kernels,
       but its documentation wants that scale to be a constant.

    It must not fire on a matrix that is not in `eight_bits`: an odd one keeps its dtype and its layout. It comes last:
    no other pass knows an int8 weight.
    """

    def __init__(self, eight_bits: EightBits, *, scale_on: ScaleOn = "product") -> None:
        self._matrices, self._scale_on = eight_bits.tensors, scale_on

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See the class."""
        facts, readers = facts_of(model), dict[EightBitMatrix, list[tuple[ir.Node, str]]]()
        inputs = {str(value.name): value for value in model.graph.inputs}
        for name, weight in facts.weights.items():
            matrix = self._matrices.get(weight.parts[0].tensor)
            if matrix is not None:
                readers.setdefault(matrix, []).append((_reader(inputs[name]), name))
        change = _Change(model.graph, facts, self._scale_on)
        for matrix, found in readers.items():
            if found[0][0].op_type == "Gather":
                change.table(matrix, *found[0])
            else:
                change.product(matrix, _in_order(matrix, found, facts))
        return ir.passes.PassResult(model, modified=bool(readers))

    def ensures(self, model: ir.Model) -> None:
        """Weights in eight bits come in pairs, values and scales of the same slices; each is dequantised by a constant
        of its own, and no two products with such weights read the same activations.
        """
        pairs: dict[tuple[object, ...], set[Form]] = {}
        for weight in facts_of(model).weights.values():
            if weight.form != Form.WHOLE:
                pairs.setdefault(weight.parts, set()).add(weight.form)
        alone = [parts for parts, forms in pairs.items() if len(forms) != 2 or Form.SCALES not in forms]
        if alone:
            raise InternalError(
                "weights in eight bits", expected="values and scales of each", found=f"{alone[0]} alone"
            )
        dequantised = [node for node in model.graph if node.op_type == "DequantizeLinear"]
        units = [operand(node, 1) for node in dequantised]
        if len(dequantised) != len(pairs) or len(set(units)) != len(units):
            expected = f"{len(pairs)} nodes, a scale of its own each"
            raise InternalError("dequantisation", expected=expected, found=f"{len(units)} with {len(set(units))}")
        read = [operand(user, 0) for node in dequantised for user, _ in _products(node)]
        if len(set(read)) != len(read):
            raise InternalError("products in eight bits", expected="activations of their own", found="shared ones")


def _products(node: ir.Node) -> list[tuple[ir.Node, int]]:
    return [(user, index) for user, index in node.outputs[0].uses() if user.op_type == "Gemm"]


def _reader(value: ir.Value) -> ir.Node:
    """The one node that reads a weight, a product or a pick of rows."""
    [(node, index)] = tuple(value.uses())
    gather = node.op_type == "Gather" and index == 0 and not ("axis" in node.attributes and int_attribute(node, "axis"))
    product = node.op_type == "Gemm" and index == 1 and len(node.inputs) == 2 and int_attribute(node, "transB") == 1
    if not gather and not product:
        raise node_error(
            node, expected="Gemm(x, W, transB=1) or Gather(W, ids)", found=f"{value.name} as input {index}"
        )
    return node


def _in_order(matrix: EightBitMatrix, found: Sequence[tuple[ir.Node, str]], facts: Facts) -> list[tuple[ir.Node, str]]:
    """The products of a matrix in the order of its tensors, which all read the same activations."""
    by_tensor = {facts.weights[name].parts[0].tensor: (node, name) for node, name in found}
    if list(matrix.names) != [name for name in matrix.names if name in by_tensor] or len(found) != len(matrix.names):
        raise node_error(found[0][0], expected=f"products with all of {matrix.names}", found=f"{sorted(by_tensor)}")
    ordered = [by_tensor[name] for name in matrix.names]
    if len({operand(node, 0) for node, _ in ordered}) != 1:
        raise node_error(ordered[0][0], expected=f"one x for all of {matrix.names}", found="several")
    return ordered


class _Change:
    """Edits of one graph."""

    def __init__(self, graph: ir.Graph, facts: Facts, scale_on: ScaleOn) -> None:
        self._graph, self._facts, self._scale_on = graph, facts, scale_on
        self._insert, self._units = Inserter(graph, "eight_bits"), 0

    def product(self, matrix: EightBitMatrix, products: Sequence[tuple[ir.Node, str]]) -> None:
        """1, 2, 3."""
        first, names = products[0][0], [name for _, name in products]
        x, dtype, rows = operand(first, 0), first.outputs[0].dtype, [fixed_dim(n.outputs[0], 1) for n, _ in products]
        assert dtype is not None
        assert first.outputs[0].shape is not None
        values, scales = self._inputs(matrix, names, Form.EIGHT_BITS_TRANSPOSED)
        shape = [first.outputs[0].shape[0], sum(rows)]
        if self._scale_on == "weight":
            result = self._insert.op(first, "Gemm", [x, self._scaled(first, values, scales, dtype)], dtype, shape)
        else:
            weight = self._dequantised(first, values, dtype)
            product = self._insert.op(first, "Gemm", [x, weight], dtype, shape)
            wide = self._insert.op(first, "Cast", [product], FLOAT, shape, to=int(FLOAT))
            result = self._insert.op(first, "Mul", [wide, scales], FLOAT, shape)
            if not (len(products) == 1 and _stays_wide(first)):
                result = self._insert.op(first, "Cast", [result], dtype, shape, to=int(dtype))
        for (node, _), part in zip(products, self._split(first, result, rows), strict=True):
            replace_uses(node.outputs[0], part)
            self._graph.remove(node, safe=True)

    def table(self, matrix: EightBitMatrix, node: ir.Node, name: str) -> None:
        """4."""
        ids, output = operand(node, 1), node.outputs[0]
        assert output.dtype is not None
        assert output.shape is not None
        values, scales = self._inputs(matrix, [name], Form.EIGHT_BITS)
        shape, rows = list(output.shape), list(output.shape)[:-1]
        picked = self._insert.op(node, "Gather", [values, ids], INT8, shape)
        wide = self._insert.op(
            node, "Cast", [self._dequantised(node, picked, output.dtype)], FLOAT, shape, to=int(FLOAT)
        )
        flat = self._insert.op(node, "Gather", [scales, ids], FLOAT, rows)
        scale = self._insert.op(node, "Unsqueeze", [flat, self._insert.ints(-1)], FLOAT, [*rows, 1])
        product = self._insert.op(node, "Mul", [wide, scale], FLOAT, shape)
        result = self._insert.op(node, "Cast", [product], output.dtype, shape, to=int(output.dtype))
        replace_uses(output, result)
        self._graph.remove(node, safe=True)

    def _inputs(self, matrix: EightBitMatrix, names: Sequence[str], form: Form) -> tuple[ir.Value, ir.Value]:
        """Values and scales in place of the weights of these names."""
        parts = tuple(part for name in names for part in self._facts.weights.pop(name).parts)
        weights = {matrix.values: (Weight(parts, 0, form), INT8), matrix.scales: (Weight(parts, 0, Form.SCALES), FLOAT)}
        made = list[ir.Value]()
        for name, (weight, dtype) in weights.items():
            self._facts.weights[name] = weight
            made.append(ir.Value(name=name, shape=ir.Shape(weight.shape), type=ir.TensorType(dtype)))
        old = [value for value in self._graph.inputs if value.name in names]
        self._graph.inputs[self._graph.inputs.index(old[0]) : self._graph.inputs.index(old[0])] = made
        for value in old:  # its reader goes as well, a moment later
            self._graph.inputs.remove(value)
        return made[0], made[1]

    def _dequantised(self, before: ir.Node, values: ir.Value, dtype: ir.DataType) -> ir.Value:
        unit = initializer(self._graph, f"eight_bits.unit.{self._units}", np.array(UNIT, dtype.numpy()))
        self._units += 1
        return self._insert.op(before, "DequantizeLinear", [values, unit], dtype, list(values.shape or ()))

    def _scaled(self, before: ir.Node, values: ir.Value, scales: ir.Value, dtype: ir.DataType) -> ir.Value:
        """5. `scales` are those of the file, of which a value is 2^-7."""
        unit = self._insert.constant(np.array(UNIT, np.float32))
        rows = self._insert.op(before, "Mul", [scales, unit], FLOAT, list(scales.shape or ()))
        shape = list(values.shape or ())
        wide = self._insert.op(before, "DequantizeLinear", [values, rows], FLOAT, shape, axis=1)
        return self._insert.op(before, "Cast", [wide], dtype, shape, to=int(dtype))

    def _split(self, before: ir.Node, whole: ir.Value, rows: Sequence[int]) -> list[ir.Value]:
        if len(rows) == 1:
            return [whole]
        node = ir.node(
            "Split", [whole, self._insert.ints(*rows)], {"axis": 1}, num_outputs=len(rows), name=f"{before.name}.split"
        )
        assert whole.shape is not None
        assert whole.dtype is not None
        for number, (output, size) in enumerate(zip(node.outputs, rows, strict=True)):
            output.name, output.type = f"{node.name}.{number}", ir.TensorType(whole.dtype)
            output.shape = ir.Shape([whole.shape[0], size])
        self._graph.insert_before(before, node)
        return list(node.outputs)


def _stays_wide(product: ir.Node) -> bool:
    """Let what a product feeds be float32, where all of it is cast to that sooner or later and only reshaped before."""
    value, moved = product.outputs[0], list[ir.Node]()
    while len(tuple(value.uses())) == 1 and not value.is_graph_output():
        [(user, index)] = tuple(value.uses())
        if user.op_type == "Cast" and int_attribute(user, "to") == int(FLOAT):
            for node in moved:
                node.outputs[0].type = ir.TensorType(FLOAT)
            replace_uses(user.outputs[0], value)
            assert isinstance(user.graph, ir.Graph)
            user.graph.remove(user, safe=True)
            return True
        if user.op_type != "Reshape" or index != 0:
            return False
        moved.append(user)
        value = user.outputs[0]
    return False
