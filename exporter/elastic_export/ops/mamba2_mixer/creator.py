"""The plugin of `elastic::Mamba2Mixer`, declared to TensorRT."""

from __future__ import annotations

import math
from typing import Any

from elastic_export.ops.contract import LIMITS, plugin_folder, read_contract
from elastic_export.ops.kernel_limits import read_formula
from elastic_export.ops.plugin_creator import Declaration, Symbols, Values, check_range, create_creator, formula

FLOAT_BYTES = 4


def create(trt: Any) -> Any:
    """An IPluginCreatorV3One of `Mamba2Mixer` for the TensorRT module `trt`."""
    return create_creator(trt, declaration())


def declaration() -> Declaration:
    """What a build must know of it."""
    return Declaration(read_contract("mamba2_mixer"), workspace_bytes, _check)


def workspace_bytes(symbols: Symbols) -> int:
    """Scratch memory of a call, whichever kernel runs it: the formula that the kernels' header states."""
    return FLOAT_BYTES * formula(read_formula(plugin_folder() / "mamba2_mixer" / LIMITS, "workspace_floats"), symbols)


def _check(values: Values) -> None:
    for name, value in values.items():
        if isinstance(value, float):
            least = -math.inf if name.startswith("time_step") else 0
            check_range(f"Mamba2Mixer: attribute {name}", value, least, math.inf)
    if values["time_step_min"] > values["time_step_max"]:
        expected = f"at most time_step_max {values['time_step_max']}"
        raise ValueError(f"Mamba2Mixer: attribute time_step_min: expected {expected}, found {values['time_step_min']}")
