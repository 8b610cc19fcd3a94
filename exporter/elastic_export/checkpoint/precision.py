"""The dtypes of models, and in which of them an export stores each weight.

Their torch and onnx_ir counterparts stand where those libraries are imported: a plan waits for neither.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from elastic_runtime.errors import BuildError

Array = npt.NDArray[Any]
#: A model's dtype -> its name in configs, interfaces and engines; bytes are `elastic_runtime.safetensors.itemsize`.
FULL_NAMES: dict[str, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
NUMPY_DTYPES: dict[str, npt.DTypeLike] = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16, "fp32": np.float32}


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
    wanted = np.dtype(NUMPY_DTYPES[dtype])
    if array.dtype == wanted:
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    lost = np.isinf(cast) & np.isfinite(array)
    if lost.any():
        expected, found = f"values that {dtype} can hold", str(array[lost][0])
        raise BuildError(f"tensor {name!r}", expected=expected, found=found, todo="use bf16 or fp32")
    return cast
