"""`elastic::MaskedRMSNorm`: the elastic form of the standard `RMSNormalization`."""

from __future__ import annotations

from typing import Final

from elastic_export.ops.op import Op, Shipped

MASKED_RMS_NORM: Final = Op(
    name="MaskedRMSNorm",
    folder="masked_rms_norm",
    inputs=("x", "weight", "mask"),
    outputs=("y",),
    attributes={"epsilon": "float"},
    mask="mask",
    # In a narrow dtype the standard op rounds before it multiplies by the weight: hence `wide`.
    shipped=Shipped("", "RMSNormalization", added={"axis": -1}, wide=True, defaults={"epsilon": 1e-5}),
    expected=lambda arch: {"epsilon": arch.epsilon},
)
