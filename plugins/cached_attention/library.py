"""The C interface of CachedAttention for ctypes: the structs of params.h and elastic_attention.h, field by field."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int32, c_uint64, c_void_p
from pathlib import Path

#: ElasticAttentionKernel.
KERNELS = {"auto": 0, "decode": 1, "prefill": 2}


class AttentionError(Exception):
    """What the library refused, in its words: subject, expected, found."""


class Shape(ctypes.Structure):
    """ElasticAttentionShape."""

    _fields_ = tuple((n, c_int32) for n in ("batch", "tokens", "heads", "key_value_heads", "head_dim", "context"))


class Requirements(ctypes.Structure):
    """ElasticAttentionRequirements."""

    _fields_ = (("workspace_bytes", c_uint64),)


class Args(ctypes.Structure):
    """ElasticAttentionArgs. Pointers are addresses in the device's memory."""

    _fields_ = (
        ("shape", Shape),
        ("dtype", c_int32),
        ("scale", c_float),
        ("multiprocessors", c_int32),
        ("reserved", c_int32),
        *((n, c_void_p) for n in ("query", "key", "value", "position", "key_cache", "value_cache", "y", "workspace")),
    )


class AttentionLibrary:
    """A loaded library."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.elastic_attention_requirements.argtypes = [POINTER(Shape), POINTER(Requirements)]
        self._library.elastic_attention_enqueue.argtypes = [POINTER(Args), c_int32, c_void_p]
        self._library.elastic_last_error.restype = c_char_p

    def requirements(self, shape: Shape) -> Requirements:
        """What a call of `shape` needs; raises AttentionError."""
        needed = Requirements()
        self._check(self._library.elastic_attention_requirements(shape, needed))
        return needed

    def enqueue(self, args: Args, kernel: str = "auto", stream: int = 0) -> None:
        """Puts one call on a CUDA stream; raises AttentionError."""
        self._check(self._library.elastic_attention_enqueue(args, KERNELS[kernel], stream))

    def _check(self, status: int) -> None:
        if status != 0:
            raise AttentionError(self._library.elastic_last_error().decode())
