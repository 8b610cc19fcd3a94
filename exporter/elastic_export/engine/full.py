"""The full TensorRT, an optional extra: its builder times kernels on the GPU it runs on, so it needs that GPU.

Written against the API it shares with TensorRT for RTX. Its compile path has not been run: no package and no GPU were
at hand when it was written.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elastic_export.engine.packages import package_version
from elastic_runtime.errors import InputError

DRIVER_LIBRARY = "libcuda.so.1"


class TensorRT:
    """The `tensorrt` distribution."""

    name = "tensorrt"

    def module(self) -> Any:
        """See `Flavour`."""
        return importlib.import_module(self.name)

    def check_machine(self) -> None:
        """See `Flavour`: package and GPU."""
        if package_version("tensorrt") is None:
            raise InputError(
                "tensorrt",
                expected="the full TensorRT to be installed",
                found="no such package",
                todo="in a clone: pip install ./engines '.[tensorrt]', or use TensorRT for RTX",
            )
        if not gpu_compute_capabilities():
            raise InputError(
                "tensorrt",
                expected="an NVIDIA GPU: the full TensorRT times kernels while it builds",
                found="no usable GPU",
                todo="build on the machine that will run the engine, or use TensorRT for RTX",
            )

    def set_target(self, trt: Any, config: Any, compute_capabilities: Sequence[str]) -> None:
        """See `Flavour`: only the GPU of this machine; the product has no list of classes to set."""
        found = gpu_compute_capabilities()
        wanted = tuple(compute_capabilities)
        if wanted != found[:1]:
            raise InputError(
                "compute capability",
                expected=f"this machine's {', '.join(found[:1])}",
                found=", ".join(wanted),
                todo="build on a machine with that GPU, or use TensorRT for RTX",
            )

    def library_links(self) -> dict[str, Path]:
        """See `Flavour`: its wheel ships the names its parser opens."""
        return {}

    def preloads(self) -> tuple[str, ...]:
        """See `Flavour`: nothing, for nothing was tried."""
        return ()

    def writes_rtx_header(self) -> bool:
        """See `Flavour`."""
        return False


def gpu_compute_capabilities() -> tuple[str, ...]:
    """`SM89` and the like for every GPU the driver shows, in its order; empty without a driver or a GPU."""
    try:
        cuda = ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return ()
    count = ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(f"SM{_attribute(cuda, i, MAJOR)}{_attribute(cuda, i, MINOR)}" for i in range(count.value))


#: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h.
MAJOR, MINOR = 75, 76


def _attribute(cuda: ctypes.CDLL, device: int, attribute: int) -> int:
    value = ctypes.c_int()
    cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
