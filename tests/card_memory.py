"""A stand-in for a card's memory: the code of `CudaMemory`, with values in main memory that share nothing with arrays.

A new value holds NaN or rubbish, as a card's memory does. What crosses between arrays and values is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnxruntime
import pytest

from elastic_runtime.ort import onnx_memory
from elastic_runtime.ort.onnx_memory import CudaMemory, HostMemory, check_cuda


class ApartMemory(CudaMemory):
    """Computes under onnxruntime's CPU provider and keeps everything in values of its own."""

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self.providers = HostMemory.providers


@contextmanager
def apart() -> Iterator[Counter[str]]:
    """While it lasts, `CudaMemory` is the stand-in; yields what crossed: `written` and `read` buffers."""
    ours = (onnx_memory.check_cuda, onnx_memory.CudaMemory)
    assert ours == (check_cuda, CudaMemory), "a test before this one left a stand-in behind"
    crossed: Counter[str] = Counter()
    make, write, read = (
        onnxruntime.OrtValue.ortvalue_from_shape_and_type,
        onnx_memory.CudaBuffer.write,
        onnx_memory.CudaBuffer.read,
    )

    def rubbish(shape: Any, dtype: Any, kind: str, index: int) -> Any:
        value = make(shape, dtype, kind, index)
        fill = np.nan if np.dtype(dtype).kind == "f" else 1 << 40
        value.update_inplace(np.full(shape, fill, dtype))
        return value

    def counted_write(self: Any, array: Any) -> None:
        crossed["written"] += 1
        write(self, array)

    def counted_read(self: Any) -> Any:
        crossed["read"] += 1
        return read(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_memory, "_KIND", "cpu")
        patch.setattr(onnx_memory, "CudaMemory", ApartMemory)
        patch.setattr(onnx_memory, "check_cuda", lambda index=0: None)
        patch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", rubbish)
        patch.setattr(onnx_memory.CudaBuffer, "write", counted_write)
        patch.setattr(onnx_memory.CudaBuffer, "read", counted_read)
        yield crossed
