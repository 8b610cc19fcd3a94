"""FP8 with one scale for the whole matrix (ModelOpt's `FP8`): w = weight * weight_scale.

`weight` is F8_E4M3 [N, K] (OCP 8-bit floating point, "FN": no infinities, NaN where all bits but the sign are set),
`weight_scale` F32 [], amax / 448. Any row and any column stands for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import ml_dtypes
import numpy as np

from elastic_export.checkpoint.formats.format import Array, Codes, Fault, Format, Piece, first_row

#: The number of each code.
E4M3: Final[Array] = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
#: All bits but the sign; codes that have all of them are no numbers.
MAGNITUDE: Final = np.uint8(0x7F)

_WEIGHT = Piece("weight", "fp8_e4m3", 1)


def _decode(by_rows: Sequence[Codes], whole: Sequence[np.float32]) -> Array:
    [codes], [scale] = by_rows, whole
    # A code always gives the same product: 256 of them are rounded, not N·K.
    return np.take(E4M3 * scale, codes)


def _fault(by_rows: Sequence[Codes]) -> Fault | None:
    [codes] = by_rows
    magnitude = codes & MAGNITUDE
    if magnitude.size == 0 or magnitude.max() < MAGNITUDE:
        return None
    return Fault(_WEIGHT, first_row(magnitude == MAGNITUDE), "numbers", "a NaN (code 0x7f or 0xff)")


FP8: Final = Format("FP8", (_WEIGHT, Piece("weight_scale", "fp32", None)), 448.0, _decode, _fault)
