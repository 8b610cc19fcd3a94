"""One rule an op: how liveness passes through it. No rule knows a parameter's name."""

from __future__ import annotations

from abc import ABC, abstractmethod

import onnx_ir as ir

from elastic_export.graph.lattices import Liveness


class Rule(ABC):
    """How zeros pass forward through an op, needs pass backward, and what a cut changes in the node itself."""

    def zeros(self, node: ir.Node, live: Liveness) -> None:  # noqa: B027  # knowing nothing is a fair default
        """Record the zeros of the outputs. Without knowledge nothing is known to be zero."""

    @abstractmethod
    def needs(self, node: ir.Node, live: Liveness) -> None:
        """Demand of inputs (and of outputs, where both must keep the same channels) what the needed outputs need.

        Called again and again until nothing grows. A channel may be left out of a sum only where it is known to be
        zero.
        """

    def cut(self, node: ir.Node, live: Liveness) -> None:  # noqa: B027  # most ops have nothing to adjust
        """Adjust attributes to the channels that stay; raise where the op cannot express them."""
