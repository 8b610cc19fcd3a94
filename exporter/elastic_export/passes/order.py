"""The passes of one budget, in order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from elastic_export.ops.table import OPS
from elastic_export.passes.assign_precision import AssignPrecision
from elastic_export.passes.base import GraphPass
from elastic_export.passes.bind_budget import BindBudget
from elastic_export.passes.collapse_layers import CollapseSkippedLayers
from elastic_export.passes.lower_linear import LowerLinear
from elastic_export.passes.lower_ops import LowerOp
from elastic_export.passes.narrow import Narrow
from elastic_export.passes.remove_dead import RemoveDead
from elastic_export.passes.remove_full_masks import RemoveFullMasks
from elastic_export.passes.renumber_states import RenumberStates
from elastic_export.products import TENSORRT_RTX, Product


def budget_passes(
    masks: Mapping[str, np.ndarray],
    dtype: ir.DataType,
    stored: Mapping[str, ir.DataType],
    product: Product = TENSORRT_RTX,
) -> tuple[GraphPass, ...]:
    """Parent graph -> plain sub-model in standard ops and those of ours that ship.

    Args:
        masks: the budget's masks by name, as `reference.budget_masks` makes them.
        dtype: the model's dtype.
        stored: dtype of every tensor as the bundle's files hold it, by tensor name.
        product: the TensorRT product that will build it; it decides what attention becomes.
    """
    return (
        BindBudget(masks),
        CollapseSkippedLayers(),
        RemoveDead(),
        Narrow(),
        RemoveFullMasks(),
        RenumberStates(),
        AssignPrecision(dtype, stored),
        *(LowerOp(op, product) for op in OPS if op.shipped is None),
        LowerLinear(),
        RemoveDead(),
    )
