"""Pass: bind a budget."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from elastic_export.graph.facts import facts_of
from elastic_export.graph.values import initializer
from elastic_export.passes.base import GraphPass
from elastic_runtime.errors import InternalError


class BindBudget(GraphPass):
    """Turn mask inputs into constants.

    1. Every mask input becomes an initializer with the budget's ones and zeros.
    2. Each reader gets its own copy: the narrow pass may cut two readers of one mask differently.

    It must not fire on a graph whose masks were bound already (there is nothing left to bind: an error).
    """

    def __init__(self, masks: Mapping[str, np.ndarray]) -> None:
        self._masks = {f"mask.{name}": data for name, data in masks.items()}

    def requires(self, model: ir.Model) -> None:
        """The masks given are the masks the graph takes, of the same length."""
        expected = {v.name: tuple(v.shape or ()) for v in model.graph.inputs if v.name in facts_of(model).masks}
        found = {name: data.shape for name, data in self._masks.items()}
        if expected != found or not expected:
            differing = sorted(str(name) for name in set(expected) ^ set(found) or set(expected)) or ["no masks left"]
            raise InternalError("masks of the budget", expected="those of the parent graph", found=", ".join(differing))

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """See the class."""
        facts = facts_of(model)
        for value in [v for v in model.graph.inputs if v.name in self._masks]:
            model.graph.inputs.remove(value)  # 1
            for count, (node, index) in enumerate(tuple(value.uses())):  # 2
                mask = self._masks[str(value.name)]
                node.replace_input_with(
                    index, initializer(model.graph, f"{value.name}.{count}", mask.astype(np.float32))
                )
        facts.masks.clear()
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """No mask is an input any more."""
        left = [value.name for value in model.graph.inputs if (value.name or "").startswith("mask.")]
        if left:
            raise InternalError("graph inputs", expected="no masks after binding", found=f"{left}")
