"""The plugin of `elastic::CachedAttention`, declared to TensorRT."""

from __future__ import annotations

import math
from typing import Any

from elastic_export.ops.cached_attention import CACHED_ATTENTION
from elastic_export.ops.contract import LIMITS, plugin_folder, read_contract
from elastic_export.ops.kernel_limits import read_constants, read_formula
from elastic_export.ops.plugin_creator import Declaration, Symbols, Values, create_creator, formula

FLOAT_BYTES = 4
_HEADER = plugin_folder() / CACHED_ATTENTION.folder / LIMITS


def create(trt: Any) -> Any:
    """An IPluginCreatorV3One of `CachedAttention` for the TensorRT module `trt`."""
    return create_creator(trt, declaration())


def declaration() -> Declaration:
    """What a build must know of it."""
    return Declaration(read_contract(CACHED_ATTENTION.folder), workspace_bytes, _check)


def workspace_bytes(symbols: Symbols) -> int:
    """Scratch memory of a call, whichever kernel runs it: the formula that the kernels' header states, of R rows."""
    rows = {"R": read_constants(_HEADER)["kMaxPartRows"]}
    return FLOAT_BYTES * formula(read_formula(_HEADER, "workspace_floats"), {**symbols, **rows})


def _check(values: Values) -> None:
    scale = values["scale"]
    if not 0 < scale < math.inf:  # as check_scale of the kernels: the library would refuse the engine when it runs
        raise ValueError(f"CachedAttention: attribute scale: expected a finite number above 0, found {scale}")
    head_dim, step = int(values["head_dim"]), read_constants(_HEADER)["kHeadDimStep"]
    if head_dim % step:
        expected = f"a multiple of {step}"
        raise ValueError(f"CachedAttention: attribute head_dim: expected {expected}, found {head_dim}")
