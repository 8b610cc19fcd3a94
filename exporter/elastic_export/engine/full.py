"""The full TensorRT, an optional extra: its builder times kernels on the GPU it runs on, so it needs that GPU.

Experimental. It is written against the API it shares with TensorRT for RTX (every name that a build uses stands in the
bindings since 10.15) and has never been run: no GPU was at hand.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elastic_export.packages import package_version
from elastic_export.products import TENSORRT, TENSORRT_RTX, ProductName
from elastic_runtime.errors import InputError

DRIVER_LIBRARY = "libcuda.so.1"
#: Before it the bindings know neither the in-place cache update nor plugins in place of function bodies.
LEAST_RELEASE = (10, 15)
INSTEAD = f"leave out --flavour {TENSORRT.name}: {TENSORRT_RTX.called} needs no GPU"
#: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h.
MAJOR, MINOR = 75, 76


class TensorRT:
    """The `tensorrt` distribution."""

    name: ProductName = TENSORRT.name

    def module(self) -> Any:
        """See `Flavour`."""
        return importlib.import_module(TENSORRT.module)

    def check_machine(self) -> None:
        """See `Flavour`: package and GPU."""
        found = package_version(self.name)
        if found is None or _release(found) < LEAST_RELEASE:
            raise InputError(
                self.name,
                expected=f"the full TensorRT to be installed, {'.'.join(map(str, LEAST_RELEASE))} or newer",
                found=found or "no such package",
                todo=f"in a clone: pip install ./engines '.[tensorrt]', or {INSTEAD}",
            )
        if not gpu_compute_capabilities():
            raise InputError(
                self.name,
                expected="an NVIDIA GPU: the full TensorRT times kernels while it builds",
                found="no usable GPU",
                todo=f"build on the machine that will run the engine, or {INSTEAD}",
            )

    def check_targets(self, targets: Mapping[str, Sequence[str]]) -> None:
        """See `Flavour`: package, GPU, and no target of another GPU than the one at hand."""
        self.check_machine()
        here = gpu_compute_capabilities()[0]  # of several the builder takes the first, and so does this check
        for target, wanted in targets.items():
            if tuple(wanted) != (here,):
                raise InputError(
                    f"target {target}",
                    expected=f"compute capability {here}, this machine's: the full TensorRT builds for no other",
                    found=", ".join(wanted),
                    todo=f"build on a machine with that GPU, or {INSTEAD}",
                )

    def set_target(self, trt: Any, config: Any, compute_capabilities: Sequence[str]) -> None:
        """See `Flavour`: nothing to set. It builds for the GPU it runs on, which `check_targets` compared before."""

    def library_links(self) -> dict[str, Path]:
        """See `Flavour`: its wheel ships the names its parser opens."""
        return {}

    def preloads(self) -> tuple[str, ...]:
        """See `Flavour`: nothing. Whether another allocator helps this builder was never measured."""
        return ()

    def writes_rtx_header(self) -> bool:
        """See `Flavour`: the layout was read off engines of the other product only."""
        return False


def gpu_compute_capabilities() -> tuple[str, ...]:
    """`SM89` and the like for every GPU the driver shows, in its order; empty without a driver or a GPU.

    Asked of the driver's library itself: a plan waits for neither TensorRT nor torch.
    """
    try:
        cuda = ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return ()
    count = ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(f"SM{_attribute(cuda, i, MAJOR)}{_attribute(cuda, i, MINOR)}" for i in range(count.value))


def _release(version: str) -> tuple[int, ...]:
    """Major and minor number of a version such as 11.4.0.106."""
    return tuple(int(part) for part in version.split(".")[:2])


def _attribute(cuda: ctypes.CDLL, device: int, attribute: int) -> int:
    value = ctypes.c_int()
    cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
