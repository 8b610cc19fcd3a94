"""NVFP4 (ModelOpt's `NVFP4` and `W4A16_NVFP4`): w = e2m1 * weight_scale * weight_scale_2.

`weight` is U8 [N, K/2], two E2M1 numbers a byte, the even column in the low nibble; `weight_scale` F8_E4M3 [N, K/16],
one for 16 neighbouring columns, row-major and not swizzled as some kernels want it; `weight_scale_2` F32 [],
amax / (6 * 448). So a row stands for itself, columns go in blocks of 16.

The product of the first two has at most six significant bits and is exact in float32, so only the last one rounds.
Multiplying the scales first, as some readers do, rounds twice, which may differ in the last bit of float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from elastic_export.checkpoint.formats.format import Array, Codes, Fault, Format, Piece, first_row
from elastic_export.checkpoint.formats.fp8 import E4M3, MAGNITUDE

BLOCK: Final = 16

_MAGNITUDES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_E2M1 = np.concatenate([_MAGNITUDES, -_MAGNITUDES])  # bit 3 is the sign
_BYTES = np.arange(256)
#: The two numbers of each byte, the low nibble's first, as one element: half as many are looked up.
_PAIRS = np.stack([_E2M1[_BYTES & 15], _E2M1[_BYTES >> 4]], axis=1).view(np.uint64).reshape(-1)

_WEIGHT = Piece("weight", "u8", 2)
_SCALE = Piece("weight_scale", "fp8_e4m3", BLOCK)


def _decode(by_rows: Sequence[Codes], whole: Sequence[np.float32]) -> Array:
    [pairs, scales], [scale] = by_rows, whole
    rows, blocks = scales.shape
    values = np.take(_PAIRS, pairs).view(np.float32).reshape(rows, blocks, BLOCK)
    values *= np.take(E4M3, scales)[:, :, None]
    values *= scale
    return values.reshape(rows, blocks * BLOCK)


def _fault(by_rows: Sequence[Codes]) -> Fault | None:
    """Of block scales: every nibble is a number. The codes of positive numbers are 0x01 to 0x7e."""
    _, scales = by_rows
    if scales.size == 0 or (scales.min() > 0 and scales.max() < MAGNITUDE):
        return None
    for found, wrong in (
        ("a NaN (code 0x7f or 0xff)", (scales & MAGNITUDE) == MAGNITUDE),
        ("zero", (scales & MAGNITUDE) == 0),
        ("a negative one", scales > MAGNITUDE),
    ):
        if wrong.any():
            return Fault(_SCALE, first_row(wrong), "positive scales of its blocks", found)
    return None


NVFP4: Final = Format("NVFP4", (_WEIGHT, _SCALE, Piece("weight_scale_2", "fp32", None)), 6.0 * 448.0, _decode, _fault)
