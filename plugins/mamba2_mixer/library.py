"""The C interface of libelastic_plugins for ctypes: the structs of params.h and elastic_mamba2.h, field by field."""

from __future__ import annotations

import ctypes
import json
import mmap
from ctypes import POINTER, c_char_p, c_float, c_int32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

#: ElasticMamba2Kernel.
KERNELS = {
    **{"auto": 0, "decode_step": 1, "scan_prefill": 2, "chunk_prefill": 3, "chunk_prefill_gated": 4},
    **{"chunk_prefill_resident": 5, "chunk_prefill_gated_resident": 6},
}

#: What precedes the JSON in the file, see common/abi.h.
ABI_MARKER = b"elastic-plugins-abi/1 "


def read_abi(path: Path) -> dict[str, Any]:
    """Versions and flags of a library, read from the file without loading it; raises MixerError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(ABI_MARKER + b"{")
        if start < 0:
            raise MixerError(f"{path}: expected the mark {ABI_MARKER.decode().strip()}, found none")
        text = data[start + len(ABI_MARKER) : data.find(b"\0", start)]
    abi: dict[str, Any] = json.loads(text)
    return abi


class MixerError(Exception):
    """What the library refused, in its words: subject, expected, found."""


class Shape(ctypes.Structure):
    """ElasticMamba2Shape."""

    _fields_ = tuple(
        (n, c_int32) for n in ("batch", "tokens", "heads", "head_dim", "groups", "state_size", "conv_width")
    )


class Requirements(ctypes.Structure):
    """ElasticMamba2Requirements."""

    _fields_ = (("workspace_bytes", c_uint64), ("counters", c_int32), ("reserved", c_int32))


class Args(ctypes.Structure):
    """ElasticMamba2Args. Pointers are addresses in the device's memory."""

    _fields_ = (
        ("shape", Shape),
        ("activation", c_int32),
        ("head_param", c_int32),
        ("epsilon", c_float),
        ("time_step_min", c_float),
        ("time_step_max", c_float),
        ("multiprocessors", c_int32),
        *((n, c_void_p) for n in ("projected", "conv_weight", "conv_bias", "a_log", "d", "dt_bias", "norm_weight")),
        *((n, c_void_p) for n in ("length", "conv_state", "ssm_state", "y", "conv_state_out", "ssm_state_out")),
        ("workspace", c_void_p),
        ("counters", c_void_p),
    )


class MixerLibrary:
    """A loaded library."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.elastic_mamba2_requirements.argtypes = [POINTER(Shape), POINTER(Requirements)]
        self._library.elastic_mamba2_enqueue.argtypes = [POINTER(Args), c_int32, c_void_p]
        self._library.elastic_last_error.restype = c_char_p
        self._library.elastic_plugins_abi.restype = c_char_p

    def requirements(self, shape: Shape) -> Requirements:
        """What a call of `shape` needs; raises MixerError."""
        needed = Requirements()
        self._check(self._library.elastic_mamba2_requirements(shape, needed))
        return needed

    def enqueue(self, args: Args, kernel: str = "auto", stream: int = 0) -> None:
        """Puts one call on a CUDA stream; raises MixerError."""
        self._check(self._library.elastic_mamba2_enqueue(args, KERNELS[kernel], stream))

    def abi(self) -> str:
        """Versions and flags as JSON."""
        text: bytes = self._library.elastic_plugins_abi()
        return text.decode()

    def _check(self, status: int) -> None:
        if status != 0:
            raise MixerError(self._library.elastic_last_error().decode())
