"""In which dtype an export stores each weight, and the conversion to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_export.dtypes import DTYPES
from elastic_runtime.errors import BuildError

Array = npt.NDArray[Any]


def stored_dtype(tensor_dtype: str, checkpoint_dtype: str, precision: str) -> str:
    """`bf16`, `fp16` or `fp32`: a tensor of the checkpoint's own dtype takes the export's precision; vectors that the
    checkpoint keeps in float32 stay float32.
    """
    return precision if tensor_dtype == checkpoint_dtype else tensor_dtype


def convert(array: Array, dtype: str, name: str) -> Array:
    """The array in `bf16`, `fp16` or `fp32`; itself where it is so already.

    Raises:
        BuildError: `dtype` cannot hold a value of the tensor `name`.
    """
    wanted = DTYPES[dtype].numpy
    if array.dtype == wanted:
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    lost = np.isinf(cast) & np.isfinite(array)
    if lost.any():
        expected, found = f"values that {dtype} can hold", str(array[lost][0])
        raise BuildError(f"tensor {name!r}", expected=expected, found=found, todo="use bf16 or fp32")
    return cast
