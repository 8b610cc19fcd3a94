"""How liveness passes through `elastic::MaskedRMSNorm`."""

from __future__ import annotations

import onnx_ir as ir

from elastic_export.graph.lattices import Liveness, known
from elastic_export.graph.rule import Rule
from elastic_export.graph.values import static_shape
from elastic_export.ops.masked_rms_norm import MASKED_RMS_NORM


class MaskedRMSNorm(Rule):
    """x [..., d], weight [d], mask [d]: a masked channel is zero and does not count; every unmasked one counts.

    y_i = x_i·m_i·w_i / √(Σ(x·m)²/Σm + eps). A masked channel is in neither sum, so it may go. An unmasked one that is
    zero still is in Σm, the number of channels, so it must stay.
    """

    def zeros(self, node: ir.Node, live: Liveness) -> None:
        """Zero in x, weight or mask is zero in y."""
        x, weight, mask = (live.zero(MASKED_RMS_NORM.operand(node, name)) for name in ("x", "weight", "mask"))
        live.set_zero(node.outputs[0], [*x[:-1], known(x[-1]) | known(weight[0]) | known(mask[0])])

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """The unmasked channels (they are counted, zero or not) and whatever y needs, alike in all operands."""
        x, weight, mask = (MASKED_RMS_NORM.operand(node, name) for name in ("x", "weight", "mask"))
        y, last = node.outputs[0], len(static_shape(x)) - 1
        live.require(mask, 0, ~known(live.zero(mask)[0]))
        for value, axis in ((x, last), (weight, 0), (y, last)):
            live.reach(value)
            live.tie(mask, 0, value, axis)
        for axis in range(last):
            live.tie(x, axis, y, axis)


RULE = MaskedRMSNorm()
