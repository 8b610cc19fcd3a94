"""The two optimisation profiles of every engine: decode (T = 1) and prefill (1 ≤ T ≤ max_tokens)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from elastic_export.engine.request import EngineRequest
from elastic_runtime.format.interface import Dim

#: Smallest, preferred and largest shape of one input.
Span = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

PROFILE_NAMES = ("decode", "prefill")
PROFILE_COUNT = len(PROFILE_NAMES)


@dataclass(frozen=True)
class Range:
    """Values a symbol takes in one profile: smallest, preferred, largest."""

    low: int
    preferred: int
    high: int


def profiles(request: EngineRequest) -> tuple[dict[str, Span], dict[str, Span]]:
    """Spans of every dynamic input, profile 0 (T = 1) first.

    B is preferred at max_batch in both: whoever raises --max-batch says that this is the load, and with the default
    of 1 the batch is static, which lets the builder fold it. Inputs of static shape (weights) are left out.
    """
    batch = Range(1, request.max_batch, request.max_batch)
    decode = _spans(request, {"B": batch, "T": Range(1, 1, 1)})
    prefill = _spans(request, {"B": batch, "T": Range(1, request.max_tokens, request.max_tokens)})
    return decode, prefill


def _spans(request: EngineRequest, ranges: Mapping[str, Range]) -> dict[str, Span]:
    spans = {}
    for name, port in request.network_inputs().items():
        shape = request.fixed(port.shape)
        if any(isinstance(dim, str) for dim in shape):
            spans[name] = _span(shape, ranges)
    return spans


def _span(shape: tuple[Dim, ...], ranges: Mapping[str, Range]) -> Span:
    dims = [Range(dim, dim, dim) if isinstance(dim, int) else ranges[dim] for dim in shape]
    return tuple(d.low for d in dims), tuple(d.preferred for d in dims), tuple(d.high for d in dims)
