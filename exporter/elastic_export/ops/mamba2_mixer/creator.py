"""The plugin of `elastic::Mamba2Mixer`, declared to TensorRT."""

from __future__ import annotations

import math
from typing import Any

from elastic_export.ops.contract import read_contract
from elastic_export.ops.plugin_creator import Declaration, Symbols, Values, check_range, create_creator

FLOAT_BYTES = 4


def create(trt: Any) -> Any:
    """An IPluginCreatorV3One of `Mamba2Mixer` for the TensorRT module `trt`."""
    return create_creator(trt, declaration())


def declaration() -> Declaration:
    """What a build must know of it."""
    return Declaration(read_contract("mamba2_mixer"), _workspace, _check)


def workspace_bytes(*, B: int, T: int, H: int, P: int, G: int, N: int) -> int:
    """Scratch memory of a call, as `plan_decode` and `plan_scan` in select.cpp count it.

    A step keeps the gated y [B, di]; a longer call dt [B, H, T], rounded up to 16 bytes, and x|B|C [B, T, dc].
    """
    if T == 1:
        return FLOAT_BYTES * B * H * P
    steps = -(-B * T * H // 4) * 4
    return FLOAT_BYTES * (steps + B * T * (H * P + 2 * G * N))


def _workspace(symbols: Symbols) -> int:
    return workspace_bytes(**{name: symbols[name] for name in "BTHPGN"})


def _check(values: Values) -> None:
    for name, value in values.items():
        if isinstance(value, float):
            least = -math.inf if name.startswith("time_step") else 0
            check_range(f"Mamba2Mixer: attribute {name}", value, least, math.inf)
    if values["time_step_min"] > values["time_step_max"]:
        expected = f"at most time_step_max {values['time_step_max']}"
        raise ValueError(f"Mamba2Mixer: attribute time_step_min: expected {expected}, found {values['time_step_min']}")
