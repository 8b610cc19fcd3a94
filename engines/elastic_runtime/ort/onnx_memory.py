"""Where the onnxruntime backend keeps weights, states and inputs: main memory, or the card of its CUDA provider.

Everything goes through onnxruntime's own values, so a card needs no second library. Between calls of the model only
three small inputs go to the card and the logits come back; zeroing and copies of states stay on it (card_copies.py).
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from elastic_runtime.backend import DeviceName
from elastic_runtime.errors import BuildError, NoCudaError, UnavailableError
from elastic_runtime.ort.card_copies import CardCopies
from elastic_runtime.ort.library import onnxruntime
from elastic_runtime.ort.overheard import Overheard, overheard

Array = npt.NDArray[Any]
CUDA = "CUDAExecutionProvider"
_KIND = "cuda"  # onnxruntime's word for the card's memory
_UNLOADED = re.compile(r"Failed to load library .* with error: (.*)")  # in its log alone; the exception does not say
_ONNX_TYPES = {"bfloat16": onnx.TensorProto.BFLOAT16}  # those that NumPy lacks, and onnxruntime asks for by number


def ort_value(array: Array) -> Any:
    """An onnxruntime value over the array's own memory; the caller keeps the array alive."""
    onnx_type = _ONNX_TYPES.get(array.dtype.name)
    if onnx_type is None:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), onnx_type)


class Buffer(Protocol):
    """An array that a model reads or writes; `value` is onnxruntime's handle of it."""

    value: Any
    nbytes: int

    def write(self, array: Array) -> None:
        """Take over the content of an array of the same shape."""

    def zero(self) -> None:
        """Set everything to zero."""

    def read(self) -> Array:
        """The content; in main memory the array itself and no copy."""

    def head(self, axis: int, rows: int) -> Buffer:
        """A copy of the first `rows`, at least one, of an axis, in the same place. Of float32, as states are."""

    def spread(self, part: Array | Buffer, axis: int) -> None:
        """Take over what `head` of this axis gave, or its content; the other rows become zero. The part stays."""


class Memory(Protocol):
    """A place for buffers, and the execution providers that compute there.

    `grows`: whether buffers that are let go make room for larger ones; if not, caches are made whole.
    """

    device: DeviceName
    grows: bool
    providers: Sequence[tuple[str, Mapping[str, str]]]

    def zeros(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Buffer:
        """A buffer of zeros."""

    def holding(self, array: Array) -> Buffer:
        """A buffer with the array's content: in main memory the array itself, which must be contiguous and aligned."""


class HostBuffer:
    """A `Buffer` over an array's own memory. Raises BuildError where there is no room for a copy."""

    def __init__(self, array: Array) -> None:
        self.array, self.value, self.nbytes = array, ort_value(array), array.nbytes

    def write(self, array: Array) -> None:
        """See `Buffer`."""
        self.array[...] = array

    def zero(self) -> None:
        """See `Buffer`."""
        self.array.fill(0)

    def read(self) -> Array:
        """See `Buffer`."""
        return self.array

    def head(self, axis: int, rows: int) -> HostBuffer:
        """See `Buffer`."""
        part = self.array[(*[slice(None)] * axis, slice(rows))]
        with _room(part.nbytes):
            return HostBuffer(part.copy())

    def spread(self, part: Array | Buffer, axis: int) -> None:
        """See `Buffer`."""
        given = part if isinstance(part, np.ndarray) else part.read()
        here, beyond = [slice(None)] * axis, given.shape[axis]
        self.array[(*here, slice(None, beyond))] = given
        self.array[(*here, slice(beyond, None))] = 0


@contextmanager
def _room(size: int) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        todo = "close other programs, or take a smaller budget, batch or context"
        raise BuildError("memory", expected=f"room for {size} bytes more", found="none", todo=todo) from error


class HostMemory:
    """Main memory; a `Memory`. Raises BuildError where there is no room."""

    device: DeviceName = "cpu"
    grows = True
    providers: Sequence[tuple[str, Mapping[str, str]]] = (("CPUExecutionProvider", {}),)

    def zeros(self, shape: Sequence[int], dtype: npt.DTypeLike) -> HostBuffer:
        """See `Memory`."""
        with _room(math.prod(shape) * np.dtype(dtype).itemsize):
            return HostBuffer(np.zeros(shape, dtype))

    def holding(self, array: Array) -> HostBuffer:
        """See `Memory`."""
        return HostBuffer(array)


class CudaBuffer:
    """A `Buffer` on a card. Raises UnavailableError when the card has no room, BuildError when it fails."""

    def __init__(self, shape: Sequence[int], dtype: np.dtype[Any], index: int, copies: CardCopies) -> None:
        self._shape, self._dtype, self._index, self._copies = tuple(shape), dtype, index, copies
        self.nbytes = int(np.prod(self._shape, dtype=np.int64)) * dtype.itemsize
        try:
            self.value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(self._shape, dtype, _KIND, index)
        except Exception as error:  # onnxruntime's own kinds have no base of theirs
            raise self._failed(f"room for {self.nbytes} bytes more", error, UnavailableError) from error

    def write(self, array: Array) -> None:
        """See `Buffer`; complete when this returns."""
        given = np.ascontiguousarray(array, self._dtype)
        try:
            self.value.update_inplace(given)
        except Exception as error:
            raise self._failed(f"it to take {self.nbytes} bytes", error) from error

    def zero(self) -> None:
        """See `Buffer`; where it lies, for the caches of a sequence are many times what else crosses."""
        if self._dtype == np.float32:
            self._copies.zero(self.value, self._shape)
        else:
            self.write(np.zeros(self._shape, self._dtype))

    def read(self) -> Array:
        """See `Buffer`: a copy in main memory."""
        try:
            return np.array(self.value.numpy())
        except Exception as error:
            raise self._failed(f"it to give {self.nbytes} bytes", error) from error

    def head(self, axis: int, rows: int) -> CudaBuffer:
        """See `Buffer`."""
        part = self._like((*self._shape[:axis], rows, *self._shape[axis + 1 :]))
        self._copies.cut(self.value, part.value, len(self._shape), axis, rows)
        return part

    def spread(self, part: Array | Buffer, axis: int) -> None:
        """See `Buffer`; an array is on the card twice for a moment."""
        if isinstance(part, np.ndarray):
            array, part = part, self._like(part.shape)
            part.write(array)
        assert isinstance(part, CudaBuffer)
        missing = self._shape[axis] - part._shape[axis]
        self._copies.spread(part.value, self.value, len(self._shape), axis, missing)

    def _like(self, shape: Sequence[int]) -> CudaBuffer:
        return CudaBuffer(shape, self._dtype, self._index, self._copies)

    def _failed(self, expected: str, error: Exception, kind: type[BuildError] = BuildError) -> BuildError:
        todo = "close what uses the card, or take a smaller budget or context, or --device cpu"
        return kind(f"card {self._index}", expected=expected, found=str(error).strip(), todo=todo)


class CudaMemory:
    """The memory of the card of that number in CUDA's order; a `Memory`.

    TF32 is off, since the twin computes in float32. Values are made without a session, so no option of one governs the
    arena that they come from: it keeps what was let go, in pieces that a larger value does not fit into.
    """

    device: DeviceName = "gpu"
    grows = False

    def __init__(self, index: int = 0) -> None:
        self._index = index
        options = {"device_id": str(index), "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
        self.providers: Sequence[tuple[str, Mapping[str, str]]] = ((CUDA, options), ("CPUExecutionProvider", {}))

    @cached_property
    def _copies(self) -> CardCopies:
        return CardCopies(self.providers)

    def zeros(self, shape: Sequence[int], dtype: npt.DTypeLike) -> CudaBuffer:
        """See `Memory`: a new value holds whatever the card's memory held."""
        buffer = CudaBuffer(shape, np.dtype(dtype), self._index, self._copies)
        buffer.zero()
        return buffer

    def holding(self, array: Array) -> CudaBuffer:
        """See `Memory`: a copy, so that the array may go."""
        buffer = CudaBuffer(array.shape, array.dtype, self._index, self._copies)
        buffer.write(array)
        return buffer


def check_cuda(index: int = 0) -> None:
    """Whether onnxruntime has its CUDA provider and can use the card's memory. Raises NoCudaError.

    Being listed says only that the package was built with it: CUDA's libraries load with the first use.
    """
    if CUDA not in onnxruntime.get_available_providers():
        raise NoCudaError(f"onnxruntime {onnxruntime.__version__} without one")
    with redirect_stdout(io.StringIO()):  # it prints what it does not find, and standard output is ours
        onnxruntime.preload_dlls()  # those that pip installed are on no loader path
    log = Overheard()
    try:
        with overheard() as log:  # a line of its own, in colour, before ours
            onnxruntime.OrtValue.ortvalue_from_shape_and_type((1,), np.float32, _KIND, index)
    except Exception as error:
        reason = _UNLOADED.search(log.text)
        found = "one whose CUDA libraries, driver or card do not answer"
        raise NoCudaError(f"one that does not load: {reason[1].strip()}" if reason else found) from error


def check_providers(session: Any, memory: Memory) -> None:
    """Whether a session computes where it was asked to: onnxruntime falls back by itself. Raises NoCudaError."""
    wanted, found = memory.providers[0][0], list(session.get_providers())
    if found[:1] != [wanted]:
        raise NoCudaError(f"a session that fell back to {', '.join(found) or 'nothing'}")
