"""Pass: assign precision."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from elastic_export.graph.facts import facts_of
from elastic_export.graph.values import Inserter, node_error, operand
from elastic_export.layers.all_kinds import STATES
from elastic_export.ops.all_ops import SHIPPED_NODES
from elastic_export.ops.contract import ACTIVATIONS, OpContract
from elastic_export.passes.base import GraphPass
from elastic_runtime.errors import InternalError

FLOAT = ir.DataType.FLOAT


class AssignPrecision(GraphPass):
    """From float32 everywhere to the model's dtype, with float32 where the mathematics wants it.

    1. Values and states take the model's dtype; states that the table of layer kinds calls wide, and logits, stay
       float32.
    2. Weights take the dtype that their tensors are stored in, one for all parts of a weight. Matrices must have the
       model's dtype; vectors may be float32 besides.
    3. An op that the table calls wide, such as `RMSNormalization`, computes in float32: casts around it.
    4. An op with a contract takes its operands of type T in the model's dtype, and those of any other type variable all
       in one: float32 where they differ. It computes in float32 inside.
    5. Logits: a product in the model's dtype, then a cast.

    A float32 model needs nothing of this and is left alone. It must not fire twice.
    """

    def __init__(self, dtype: ir.DataType, stored: Mapping[str, ir.DataType]) -> None:
        """`dtype`: the model's. `stored`: dtype of each tensor as the file holds it, by its name."""
        self._dtype, self._stored = dtype, stored

    def requires(self, model: ir.Model) -> None:
        """All values are float32 or integers, and every weight is stored in one dtype that is known."""
        for value in _float_values(model):
            if value.dtype != FLOAT:
                raise InternalError(
                    f"value {value.name}", expected="float32 before precision is assigned", found=f"{value.dtype}"
                )
        weights = facts_of(model).weights
        unknown = sorted(set(facts_of(model).tensors()) - set(self._stored))
        if unknown:
            raise InternalError("weights", expected="a known dtype each", found=f"none for {unknown[:5]}")
        for name, weight in weights.items():
            if len({self._stored[part.tensor] for part in weight.parts}) > 1:
                found = ", ".join(f"{part.tensor} in {self._stored[part.tensor]}" for part in weight.parts)
                raise InternalError(f"weight {name}", expected="tensors stored in one dtype", found=found)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See the class."""
        facts, inserter = facts_of(model), Inserter(model.graph, "precision")
        wide = {name for s in facts.states.values() if STATES[s.kind][1].wide for name in (s.input, s.output)}
        for value in _float_values(model):  # 1, 2
            weight = facts.weights.get(str(value.name))
            stored = self._dtype if weight is None else self._stored[weight.parts[0].tensor]
            value.type = ir.TensorType(FLOAT if value.name in wide else stored)
        for node in list(model.graph):
            self._fit(node, inserter)
        self._cast_logits(model, inserter)  # 5
        narrow = self._dtype != FLOAT or any(self._stored[name] != FLOAT for name in facts.tensors())
        return ir.passes.PassResult(model, modified=narrow)

    def _fit(self, node: ir.Node, inserter: Inserter) -> None:
        op, shipped = SHIPPED_NODES.get((node.domain, node.op_type), (None, None))
        if shipped is not None and shipped.wide:
            self._compute_wide(node, inserter)  # 3
        elif op is not None and op.ships:
            self._fit_operands(node, op.contract, inserter)  # 4
        else:
            for value in node.inputs:
                if value is not None and value.dtype in _FLOATS and value.dtype != self._dtype:
                    raise node_error(node, expected=f"{self._dtype} operands", found=f"{value.name} in {value.dtype}")

    def _compute_wide(self, node: ir.Node, inserter: Inserter) -> None:
        for index in range(len(node.inputs)):
            node.replace_input_with(index, _cast(inserter, node, operand(node, index), FLOAT))
        _cast_output(inserter, node, self._dtype)

    def _fit_operands(self, node: ir.Node, contract: OpContract, inserter: Inserter) -> None:
        for variable, positions in contract.variables().items():
            dtypes = {operand(node, index).dtype for index in positions}
            together = self._dtype if variable == ACTIVATIONS or dtypes == {self._dtype} else FLOAT
            for index in positions:
                node.replace_input_with(index, _cast(inserter, node, operand(node, index), together))

    def _cast_logits(self, model: ir.Model, inserter: Inserter) -> None:
        logits = next(value for value in model.graph.outputs if value.name == "logits")
        producer = logits.producer()
        assert producer is not None
        _cast_output(inserter, producer, FLOAT, computed=self._dtype)

    def ensures(self, model: ir.Model) -> None:
        """Recurrent state and logits are float32; conv states and caches have the model's dtype."""
        ports = {value.name: value for value in (*model.graph.inputs, *model.graph.outputs)}
        for state in facts_of(model).states.values():
            expected = FLOAT if STATES[state.kind][1].wide else self._dtype
            for name in (state.input, state.output):
                if ports[name].dtype != expected:
                    raise InternalError(f"state {name}", expected=f"{expected}", found=f"{ports[name].dtype}")
        if ports["logits"].dtype != FLOAT:
            raise InternalError("logits", expected="float32", found=f"{ports['logits'].dtype}")


_FLOATS = (FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _float_values(model: ir.Model) -> list[ir.Value]:
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [output for node in model.graph for output in node.outputs]
    return [value for value in values if value.dtype in _FLOATS]


def _cast(inserter: Inserter, before: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    if value.dtype == dtype:
        return value
    return inserter.op(before, "Cast", [value], dtype, list(value.shape or ()), to=int(dtype))


def _cast_output(inserter: Inserter, node: ir.Node, to: ir.DataType, computed: ir.DataType = FLOAT) -> None:
    """Let a node give its output in `computed` and its readers read it in `to`."""
    output = node.outputs[0]
    output.type = ir.TensorType(computed)
    if computed == to:
        return
    cast = ir.node("Cast", [output], attributes={"to": int(to)}, name=f"{node.name}.cast")
    result = cast.outputs[0]
    result.name, result.type, result.shape = f"{node.name}.cast.out", ir.TensorType(to), output.shape
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    if output.is_graph_output():
        # The interface's name stays with what a caller reads, the cast; the node's own output takes the cast's.
        result.name, output.name = output.name, result.name
        for index, value in enumerate(graph.outputs):
            if value is output:
                graph.outputs[index] = result
    for user, index in tuple(output.uses()):
        if user is not cast:
            user.replace_input_with(index, result)
    graph.insert_after(node, cast)
