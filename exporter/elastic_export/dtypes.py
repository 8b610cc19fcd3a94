"""The dtypes of models, in every spelling.

Plain words only: a plan waits for neither torch nor onnx, a build process for numpy no more. What those libraries call
a dtype is looked up in them when somebody who has them asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from elastic_runtime.format.interface import StoredDtype

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    import torch


@dataclass(frozen=True)
class Dtype:
    """A dtype that models are stored in, and but for int8 computed in.

    `short` is ours (and that of options), `full` that of configs, interfaces, numpy and torch, `onnx` and `tensorrt`
    those of their enumerations. Bytes are `elastic_runtime.format.safetensors.itemsize(short)`.
    """

    short: StoredDtype
    full: str
    onnx: str
    tensorrt: str

    @property
    def numpy(self) -> np.dtype[Any]:
        """As numpy knows it; ml_dtypes teaches it bfloat16."""
        import ml_dtypes  # noqa: F401, PLC0415
        import numpy as np  # noqa: PLC0415

        return np.dtype(self.full)

    @property
    def ir(self) -> ir.DataType:
        """As onnx_ir knows it."""
        import onnx_ir  # noqa: PLC0415

        return onnx_ir.DataType[self.onnx]

    @property
    def torch(self) -> torch.dtype:
        """As torch knows it."""
        import torch  # noqa: PLC0415

        dtype: torch.dtype = getattr(torch, self.full)
        return dtype


DTYPES: Final[dict[str, Dtype]] = {
    dtype.short: dtype
    for dtype in (
        Dtype("bf16", "bfloat16", "BFLOAT16", "BF16"),
        Dtype("fp16", "float16", "FLOAT16", "HALF"),
        Dtype("fp32", "float32", "FLOAT", "FLOAT"),
    )
}
#: Of weights alone.
INT8: Final = Dtype("int8", "int8", "INT8", "INT8")
#: TensorRT's name of a dtype -> ours in interfaces, the dtypes of tokens and shapes besides.
OF_TENSORRT: Final = {
    **{dtype.tensorrt: dtype.full for dtype in (*DTYPES.values(), INT8)},
    "INT64": "int64",
    "INT32": "int32",
    "BOOL": "bool",
}


def of_ir(found: ir.DataType) -> Dtype:
    """The dtype that onnx_ir calls so.

    Raises:
        KeyError: it is no dtype of a model.
    """
    return {dtype.onnx: dtype for dtype in (*DTYPES.values(), INT8)}[found.name]
