"""A card through libcuda, the driver's own library: no CUDA toolkit and no package is needed.

The primary context is shared with TensorRT's runtime. Calls are those of cuda.h (CUDA driver API 12 and 13).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from ctypes import byref, c_char_p, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p
from typing import Any

import numpy as np

from elastic_runtime.driver.blocks import Block
from elastic_runtime.driver.device import Array, Rows
from elastic_runtime.driver.staging import Staging
from elastic_runtime.errors import BuildError, UnavailableError
from elastic_runtime.format.slicing import Read

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NON_BLOCKING, _THREAD_LOCAL = 1, 1
_HOST, _DEVICE = 1, 2
_NO_TIMES = 2  # CU_EVENT_DISABLE_TIMING
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_MEMORY = "close what uses the card, or take a smaller budget or context"
_DRIVER = "see whether nvidia-smi shows the card as sound, or run on the CPU (--device cpu)"
_MOST_PITCH = 2**31 - 1  # bytes: what cuMemcpy2D takes (CU_DEVICE_ATTRIBUTE_MAX_PITCH of every card)


class _Copy2D(ctypes.Structure):
    """CUDA_MEMCPY2D."""

    _fields_ = (
        ("srcXInBytes", c_size_t),
        ("srcY", c_size_t),
        ("srcMemoryType", c_int),
        ("srcHost", c_void_p),
        ("srcDevice", c_uint64),
        ("srcArray", c_void_p),
        ("srcPitch", c_size_t),
        ("dstXInBytes", c_size_t),
        ("dstY", c_size_t),
        ("dstMemoryType", c_int),
        ("dstHost", c_void_p),
        ("dstDevice", c_uint64),
        ("dstArray", c_void_p),
        ("dstPitch", c_size_t),
        ("WidthInBytes", c_size_t),
        ("Height", c_size_t),
    )


_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (c_void_p,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDeviceGetPCIBusId": (c_void_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (c_void_p, c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemsetD8Async": (c_uint64, c_ubyte, c_size_t, c_void_p),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuMemcpyDtoDAsync_v2": (c_uint64, c_uint64, c_size_t, c_void_p),
    "cuMemcpy2DAsync_v2": (c_void_p, c_void_p),
    "cuMemAllocHost_v2": (c_void_p, c_size_t),
    "cuMemFreeHost": (c_void_p,),
    "cuEventCreate": (c_void_p, c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventDestroy_v2": (c_void_p,),
    "cuStreamCreate": (c_void_p, c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, c_void_p),
    "cuGraphInstantiateWithFlags": (c_void_p, c_void_p, c_uint64),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGetErrorName": (c_int, c_void_p),
}


class CudaDevice:
    """A `Device` on the card of that number.

    Raises:
        BuildError: no driver, no such card.
    """

    def __init__(self, index: int = 0) -> None:
        self._cuda, self._index = _load(), index
        self._context: c_void_p | None = None
        self._staging: Staging | None = None
        self._do("cuInit", 0)
        device, context, stream = c_int(), c_void_p(), c_void_p()
        self._do("cuDeviceGet", byref(device), index)
        self._device = device.value
        self._do("cuDevicePrimaryCtxRetain", byref(context), self._device)
        self._context = context
        try:
            self._do("cuStreamCreate", byref(stream), _NON_BLOCKING)
        except BaseException:  # an interrupt too
            self._release()
            raise
        self.stream = int(stream.value or 0)

    def allocate(self, nbytes: int) -> int:
        """See `Device`."""
        address = c_uint64()
        self._do("cuMemAlloc_v2", byref(address), nbytes)
        return int(address.value)

    def free(self, address: int) -> None:
        """See `Device`; waits for the stream first, and goes on where that fails."""
        try:
            self.synchronize()
        finally:
            self._do("cuMemFree_v2", address)

    def zero(self, address: int, nbytes: int) -> None:
        """See `Device`."""
        self._do("cuMemsetD8Async", address, 0, nbytes, self.stream)

    def upload(self, address: int, array: Array) -> None:
        """See `Device`: pageable memory is staged by the driver before the call returns."""
        self._copy(address, array.ctypes.data, array.nbytes)

    def copy(self, target: int, source: int, rows: Rows) -> None:
        """See `Device`."""
        if rows.height == 1 or rows.width == rows.target_pitch == rows.source_pitch:
            self._do("cuMemcpyDtoDAsync_v2", target, source, rows.height * rows.width, self.stream)
        elif max(rows.target_pitch, rows.source_pitch) > _MOST_PITCH:
            for row in range(rows.height):
                at = (target + row * rows.target_pitch, source + row * rows.source_pitch)
                self._do("cuMemcpyDtoDAsync_v2", *at, rows.width, self.stream)
        else:
            copy = _Copy2D(
                srcMemoryType=_DEVICE,
                srcDevice=source,
                srcPitch=rows.source_pitch,
                dstMemoryType=_DEVICE,
                dstDevice=target,
                dstPitch=rows.target_pitch,
                WidthInBytes=rows.width,
                Height=rows.height,
            )
            self._do("cuMemcpy2DAsync_v2", byref(copy), self.stream)

    def upload_blocks(self, address: int, read: Read, blocks: Sequence[Block]) -> None:
        """See `Device`: through page-locked buffers, which are kept until `finish_uploads`."""
        if self._staging is None:
            self._staging = Staging(self)
        self._staging.copy(address, read, blocks)

    def finish_uploads(self) -> None:
        """See `Device`."""
        staging, self._staging = self._staging, None
        if staging is not None:
            try:
                self.synchronize()
            finally:
                staging.close()

    def host_buffer(self, nbytes: int) -> Array:
        """See `Device`."""
        memory = c_void_p()
        self._do("cuMemAllocHost_v2", byref(memory), nbytes)
        return np.ctypeslib.as_array((c_ubyte * nbytes).from_address(int(memory.value or 0)))

    def free_host_buffer(self, buffer: Array) -> None:
        """See `Device`."""
        self._do("cuMemFreeHost", buffer.ctypes.data)

    def copy_rows(self, address: int, rows: Array, pitch: int) -> None:
        """See `Lane`."""
        height, width = rows.shape
        if height == 1 or pitch == width:
            self._copy(address, rows.ctypes.data, rows.nbytes)
        elif pitch > _MOST_PITCH:
            for row in range(height):
                self._copy(address + row * pitch, rows.ctypes.data + row * width, width)
        else:
            self._copy_2d(address, rows.ctypes.data, (height, width), pitch)

    def make_event(self) -> c_void_p:
        """See `Lane`."""
        event = c_void_p()
        self._do("cuEventCreate", byref(event), _NO_TIMES)
        return event

    def drop_event(self, event: c_void_p) -> None:
        """See `Lane`."""
        self._do("cuEventDestroy_v2", event)

    def record(self, event: c_void_p) -> None:
        """See `Lane`."""
        self._do("cuEventRecord", event, self.stream)

    def wait(self, event: c_void_p) -> None:
        """See `Lane`."""
        self._do("cuEventSynchronize", event)

    def _copy(self, address: int, source: int, nbytes: int) -> None:
        self._do("cuMemcpyHtoDAsync_v2", address, source, nbytes, self.stream)

    def _copy_2d(self, address: int, source: int, shape: tuple[int, int], pitch: int) -> None:
        height, width = shape
        copy = _Copy2D(
            srcMemoryType=_HOST,
            srcHost=source,
            srcPitch=width,
            dstMemoryType=_DEVICE,
            dstDevice=address,
            dstPitch=pitch,
            WidthInBytes=width,
            Height=height,
        )
        self._do("cuMemcpy2DAsync_v2", byref(copy), self.stream)

    def download(self, address: int, array: Array) -> None:
        """See `Device`."""
        self._do("cuMemcpyDtoHAsync_v2", array.ctypes.data, address, array.nbytes, self.stream)
        self.synchronize()

    def synchronize(self) -> None:
        """See `Device`."""
        self._do("cuStreamSynchronize", self.stream)

    def capture(self, work: Callable[[], None]) -> Any:
        """See `Device`: the handle of an instantiated graph."""
        graph, executable = c_void_p(), c_void_p()
        self._do("cuStreamBeginCapture_v2", self.stream, _THREAD_LOCAL)
        try:
            try:
                work()
            finally:
                self._do("cuStreamEndCapture", self.stream, byref(graph))
            self._do("cuGraphInstantiateWithFlags", byref(executable), graph, 0)
        finally:
            if graph:
                self._do("cuGraphDestroy", graph)
        return executable

    def launch(self, graph: Any) -> None:
        """See `Device`."""
        self._do("cuGraphLaunch", graph, self.stream)

    def drop(self, graph: Any) -> None:
        """See `Device`."""
        try:
            self.synchronize()
        finally:
            self._do("cuGraphExecDestroy", graph)

    def close(self) -> None:
        """See `Device`."""
        try:
            try:
                self.finish_uploads()
            finally:
                self._do("cuStreamDestroy_v2", self.stream)
        finally:
            self._release()

    def _release(self) -> None:
        """Give the context up, which asks for none that is current: a broken one cannot be made so."""
        self._check("cuDevicePrimaryCtxRelease_v2", self._cuda.cuDevicePrimaryCtxRelease_v2(self._device))

    def _do(self, name: str, *arguments: Any) -> None:
        """Call the driver. The context is current per thread, and any thread may call: it is set each time."""
        code = self._cuda.cuCtxSetCurrent(self._context) if self._context else 0
        self._check(name, code or getattr(self._cuda, name)(*arguments))

    def _check(self, name: str, code: int) -> None:
        if code:
            text = c_char_p()
            self._cuda.cuGetErrorName(code, byref(text))
            found = (text.value or b"unknown").decode()
            expected, found = f"{name} to succeed", f"{found} ({code})"
            if code == _OUT_OF_MEMORY:  # nothing failed: a smaller budget may run, or the CPU
                raise UnavailableError(f"card {self._index}", expected=expected, found=found, todo=_MEMORY)
            raise BuildError(f"card {self._index}", expected=expected, found=found, todo=_DRIVER)


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA that the driver runs, such as (13, 0); None without CUDA's driver."""
    try:
        cuda = _load()
    except BuildError:
        return None
    version = c_int()
    return divmod(version.value // 10, 100) if cuda.cuDriverGetVersion(byref(version)) == 0 else None


def pci_bus_id(index: int = 0) -> str | None:
    """Where the card of that number in CUDA's order sits, such as `0000:65:00.0`; None without CUDA's driver.

    Raises:
        BuildError: the driver shows no such card.
    """
    try:
        cuda = _load()
    except BuildError:
        return None
    device, text = c_int(), ctypes.create_string_buffer(32)
    code = cuda.cuInit(0) or cuda.cuDeviceGet(byref(device), index) or cuda.cuDeviceGetPCIBusId(text, 32, device)
    if code:
        raise BuildError(
            f"card {index}",
            expected="one that CUDA shows",
            found=f"CUDA error {code}",
            todo="look at CUDA_VISIBLE_DEVICES, and whether nvidia-smi shows the card",
        )
    return text.value.decode()


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
        for name, types in _SIGNATURES.items():
            getattr(library, name).argtypes = types
    except (OSError, AttributeError) as error:
        raise BuildError(
            "NVIDIA driver",
            expected=f"{_LIBRARY} of CUDA 12 or 13",
            found=str(error),
            todo="install NVIDIA's driver, or run on the CPU (--device cpu)",
        ) from None
    return library
