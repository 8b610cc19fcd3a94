"""Formats of quantised weights that are not read, by what lies beside a matrix: who has one should hear its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol


class Described(Protocol):
    """What is known of a tensor from its header."""

    @property
    def dtype(self) -> str:
        """Our name of the dtype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""


#: Names after the module's that one format alone has, in the order of the question.
_BY_NAME: Final = {
    "pre_quant_scale": "AWQ or SmoothQuant, whose pre_quant_scale multiplies what comes in",
    "weight_scale_inv": "FP8 in blocks of rows and columns",
    "qweight": "GPTQ or AWQ",
    "weight_global_scale": "compressed-tensors' nvfp4-pack-quantized",
    "weight_packed": "compressed-tensors' pack-quantized",
    "weight_zero_point": "compressed-tensors with zero points",
    "SCB": "bitsandbytes in 8 bits",
    "weight.absmax": "bitsandbytes in 4 bits",
    "biases": "MLX",
}


def foreign_format(shape: Sequence[int], beside: Mapping[str, Described]) -> str:
    """What a format that is not read is called; empty where nothing shows one.

    Args:
        shape: of the matrix, [N, K].
        beside: its module's tensors, by their names after the module's.
    """
    if name := next((called for name, called in _BY_NAME.items() if name in beside), ""):
        return name
    if any(name.startswith("weight.quant_state") for name in beside):
        return _BY_NAME["weight.absmax"]
    if "weight" in beside and "weight_scale" in beside:
        return _by_headers(shape, beside["weight"], beside["weight_scale"])
    return ""


def _by_headers(shape: Sequence[int], weight: Described, scale: Described) -> str:
    rows, columns = shape
    narrow = weight.dtype == "fp8_e4m3"
    if scale.dtype == "u8":  # E8M0, powers of two
        return "MXFP8" if narrow else "MXFP4"
    if narrow and scale.shape in ((rows,), (rows, 1)) and rows > 1:
        return "FP8 with a scale for each row (per channel; float-quantized of compressed-tensors)"
    if narrow and len(scale.shape) == 2:
        return _BY_NAME["weight_scale_inv"]
    packed_rows = weight.dtype == "u8" and weight.shape == (rows // 2, columns)
    return "W4A16_AWQ or another with two rows of 4-bit integers in a byte" if packed_rows else ""
