"""Pass: lower linear layers."""

from __future__ import annotations

import onnx_ir as ir

from elastic_export.graph.values import Inserter, fixed_dim, operand, replace_uses, static_shape
from elastic_export.passes.base import GraphPass
from elastic_runtime.errors import InternalError


class LowerLinear(GraphPass):
    """Lower `MatMul(x, Transpose(W))` to `Gemm(x, W, transB=1)` on two axes.

    1. x [B, T, K] is flattened to [B·T, K], once for all linear layers that read it.
    2. `Gemm` with `transB=1` reads W [N, K] as it lies in the checkpoint. The other form makes TensorRT copy W into
       scratch memory at each call, when W is an input.
    3. The result is given its axes [B, T, N] back, with B and T read off the token ids.

    It must not fire on a MatMul whose right side is no transposed matrix; none of those is left afterwards.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See the class."""
        lowering = _Lowering(model)
        linears = [node for node in model.graph if node.op_type == "MatMul" and _transposed(node) is not None]
        for node in linears:
            lowering.lower(node)
        return ir.passes.PassResult(model, modified=bool(linears))

    def ensures(self, model: ir.Model) -> None:
        """No linear layer is left as MatMul."""
        left = [node.name for node in model.graph if node.op_type == "MatMul" and _transposed(node) is not None]
        if left:
            raise InternalError("linear layers", expected="all lowered to Gemm", found=f"{left}")


def _transposed(node: ir.Node) -> ir.Value | None:
    """W where the right operand is Transpose(W) of a matrix."""
    producer = operand(node, 1).producer()
    if producer is None or producer.op_type != "Transpose" or len(static_shape(operand(node, 1))) != 2:
        return None
    return operand(producer, 0)


class _Lowering:
    def __init__(self, model: ir.Model) -> None:
        self._graph, self._insert = model.graph, Inserter(model.graph, "linear")
        self._ids = next(value for value in model.graph.inputs if value.name == "input_ids")
        self._flat: dict[ir.Value, ir.Value] = {}
        self._shapes: dict[int, ir.Value] = {}
        self._batch_tokens: ir.Value | None = None

    def lower(self, node: ir.Node) -> None:
        x, weight, output = operand(node, 0), _transposed(node), node.outputs[0]
        assert weight is not None
        assert output.dtype is not None
        assert output.shape is not None
        size = fixed_dim(output, -1)
        if len(static_shape(x)) == 2:
            result = self._insert.op(node, "Gemm", [x, weight], output.dtype, list(output.shape), transB=1)
        else:
            flat = self._flatten(node, x)  # 1
            product = self._insert.op(node, "Gemm", [flat, weight], output.dtype, ["B*T", size], transB=1)  # 2
            shape = self._unflat_shape(node, size)
            result = self._insert.op(node, "Reshape", [product, shape], output.dtype, list(output.shape))  # 3
        transpose = operand(node, 1).producer()
        replace_uses(output, result)
        self._graph.remove(node, safe=True)
        if transpose is not None and not transpose.outputs[0].uses():
            self._graph.remove(transpose, safe=True)

    def _flatten(self, node: ir.Node, x: ir.Value) -> ir.Value:
        if x not in self._flat:
            assert x.dtype is not None
            assert x.shape is not None
            size = fixed_dim(x, -1)
            self._flat[x] = self._insert.op(node, "Reshape", [x, self._insert.ints(-1, size)], x.dtype, ["B*T", size])
        return self._flat[x]

    def _unflat_shape(self, node: ir.Node, size: int) -> ir.Value:
        """[B, T, size] as a shape tensor."""
        first = next(iter(self._graph))  # B and T are read once, before every linear layer that reshapes by them
        if self._batch_tokens is None:
            self._batch_tokens = self._insert.op(first, "Shape", [self._ids], ir.DataType.INT64, [2])
        if size not in self._shapes:
            parts = [self._batch_tokens, self._insert.ints(size)]
            self._shapes[size] = self._insert.op(node, "Concat", parts, ir.DataType.INT64, [3], axis=0)
        return self._shapes[size]
