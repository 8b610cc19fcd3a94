"""The table of ops. No stage spells an op's name or counts its operands: it asks here.

An op more is a folder beside `mamba2_mixer` and its line here (exporter/README.md walks through it).
"""

from __future__ import annotations

from typing import Final

from elastic_export.ops.cached_attention import CACHED_ATTENTION
from elastic_export.ops.last_token import LAST_TOKEN
from elastic_export.ops.mamba2_mixer import MAMBA2_MIXER
from elastic_export.ops.masked_rms_norm import MASKED_RMS_NORM
from elastic_export.ops.op import Op, Shipped

#: Every op of the parent graph besides standard ones; lowered in this order.
OPS: Final[tuple[Op, ...]] = (MASKED_RMS_NORM, MAMBA2_MIXER, CACHED_ATTENTION, LAST_TOKEN)
OP_OF: Final = {op.name: op for op in OPS}
#: Those that emitted files hold, by the name they have there.
SHIPPED: Final[dict[str, Op]] = {op.shipped.name: op for op in OPS if op.shipped is not None and op.ships}
#: Every node that an op of ours is in emitted files, those of the ONNX standard too, by (domain, name).
SHIPPED_NODES: Final[dict[tuple[str, str], tuple[Op, Shipped]]] = {
    (op.shipped.domain, op.shipped.name): (op, op.shipped) for op in OPS if op.shipped is not None
}
