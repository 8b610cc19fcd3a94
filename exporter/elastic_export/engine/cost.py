"""What building an engine takes. No formula gives it: a builder's own figures, measured with TensorRT-RTX 1.7.1."""

from __future__ import annotations

from typing import Final

from elastic_export.plan.work import Cost, Work
from elastic_runtime.format.interface import OpsMode

#: Anonymous memory of a build process before its first layer, and of each layer: 0.25 GB for the 12B's 62 with plugins.
_PROCESS: Final = 130 << 20
_LAYER: Final[dict[OpsMode, int]] = {"plugin": 2 << 20, "native": 12 << 20}
#: Rounds of `Work.steps`: 1 s and 0.04 s a layer with plugins, 0.5 s a layer without, at 20 million rounds a second.
_START_STEPS: Final = 20e6
_LAYER_STEPS: Final[dict[OpsMode, float]] = {"plugin": 0.8e6, "native": 10e6}
#: Weights inside an engine: the builder holds them this often.
_COPIES: Final = 3


def engine_cost(layers: int, ops: OpsMode, capabilities: int, embedded_bytes: int = 0) -> Cost:
    """Of one build process, for a model of so many layers and so many compute capabilities in one engine."""
    steps = _START_STEPS + capabilities * layers * _LAYER_STEPS[ops]
    copied = Work(moved=2.0 * _COPIES * embedded_bytes)
    return Cost(_PROCESS + layers * _LAYER[ops] + _COPIES * embedded_bytes, Work(steps=steps) + copied)
