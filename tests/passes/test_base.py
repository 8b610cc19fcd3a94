"""The base of every pass: our errors come through as themselves, whichever part of the contract raises them."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from elastic_export.graph.values import node_error
from elastic_export.passes import GraphPass, run_passes
from elastic_runtime.errors import InternalError

TEXT = "g (float[B,4] x) => (float[B,4] logits) { logits = Relu(x) }"


class Failing(GraphPass):
    """Raises in one part of its contract."""

    def __init__(self, where: str, error: Exception) -> None:
        self.where, self.error = where, error

    def _maybe(self, where: str) -> None:
        if where == self.where:
            raise self.error

    def requires(self, model: ir.Model) -> None:
        self._maybe("requires")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._maybe("call")
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        self._maybe("ensures")


@pytest.mark.parametrize("where", ["requires", "call", "ensures"])
def test_our_errors_come_through_as_themselves(where: str, parse: Callable[[str], ir.Model]) -> None:
    error = InternalError("node x", expected="a", found="b")
    with pytest.raises(InternalError, match=r"^node x: expected a, found b\. This is a fault of") as caught:
        Failing(where, error)(parse(TEXT))
    assert caught.value is error


def test_other_errors_keep_their_cause(parse: Callable[[str], ir.Model]) -> None:
    with pytest.raises(ir.passes.InvariantError) as caught:
        Failing("ensures", KeyError("lost"))(parse(TEXT))
    assert isinstance(caught.value.__cause__, KeyError)


def test_passes_run_in_order_and_show_the_graph_between_them(parse: Callable[[str], ir.Model]) -> None:
    model, seen = parse(TEXT), list[tuple[int, str]]()
    passes = [Failing("never", KeyError()), Failing("never", KeyError())]
    result = run_passes(model, passes, lambda step, each, graph: seen.append((step, each.name)))
    assert result is model
    assert seen == [(0, "Failing"), (1, "Failing")]


def test_node_errors_name_the_node_and_its_op(parse: Callable[[str], ir.Model]) -> None:
    [node] = parse(TEXT).graph
    node.name = "culprit"
    error = node_error(node, expected="this", found="that")
    assert (error.what, error.exit_code) == ("node culprit (Relu): expected this, found that", 70)
