"""From PyTorch ops to ONNX nodes, for `torch.onnx.export`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxscript
import torch

from elastic_export.ops.all_ops import OPS


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """PyTorch op -> function that records the ONNX node. Those of our ops ask for their schemas (`ops.schemas`)."""
    return {torch.ops.aten.linear.default: _linear, **dict(op.translation() for op in OPS)}


def _linear(x, weight, bias=None):  # type: ignore[no-untyped-def]
    """One canonical form whatever the rank of x; the passes choose the shape of the matmul later."""
    assert bias is None
    standard = onnxscript.opset23  # these two ops are the same in the opset of the graph
    return standard.MatMul(x, standard.Transpose(weight, perm=[1, 0]))
