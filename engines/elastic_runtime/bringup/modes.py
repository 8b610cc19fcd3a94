"""How decode steps run: the ways that TensorRT and the runtime have, to be tried one after the other.

The runtime takes one way and has no switch for the others, which serve nobody but whoever looks for a fault. They are
set here, on TensorRT's own configuration of a context, right before it makes one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from elastic_runtime.tensorrt.backend_tensorrt import Graphs

EAGER, LAZY, OWN_CAPTURE, WHOLE_GRAPH = "eager", "lazy", "own-capture", "whole-graph-capture"


@dataclass(frozen=True)
class Mode:
    """`graphs`: who records decode steps, None as the runtime decides. `lazy`: kernels are compiled behind the first
    runs, which use slower ones meanwhile; else before them.
    """

    graphs: Graphs | None
    lazy: bool = False


#: The plainest first: what differs from it in another mode is that mode's fault.
MODES: dict[str, Mode] = {
    EAGER: Mode("off"),
    LAZY: Mode("off", lazy=True),
    OWN_CAPTURE: Mode("by this runtime"),
    WHOLE_GRAPH: Mode(None),  # what a session does
}


def pin(load: Callable[[], Any], mode: Mode) -> None:
    """Have every engine that this process reads from now on make contexts of that mode.

    Args:
        load: gives the bindings; not called where the mode is the runtime's own.
        mode: which.
    """
    if mode.graphs is None:
        return
    trt = load()

    class Pinned(trt.Runtime):  # type: ignore[misc, name-defined]  # the module is a value here
        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
            engine = super().deserialize_cuda_engine(serialized_engine)
            return None if engine is None else _PinnedEngine(trt, engine, mode)

    trt.Runtime = Pinned


class _PinnedEngine:
    """An engine in all but the making of contexts."""

    def __init__(self, trt: Any, engine: Any, mode: Mode) -> None:
        self._trt, self._engine, self._mode = trt, engine, mode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def create_execution_context(self, config: Any) -> Any:
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.DISABLED
        if self._mode.lazy:
            lazy = self._trt.DynamicShapesKernelSpecializationStrategy.LAZY
            config.dynamic_shapes_kernel_specialization_strategy = lazy
        return self._engine.create_execution_context(config)
