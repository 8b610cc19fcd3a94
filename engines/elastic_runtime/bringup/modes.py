"""How decode steps run: the ways that TensorRT and the runtime have, to be tried one after the other.

The runtime takes one way and has no switch for the others, which serve nobody but whoever looks for a fault. They are
set here, on TensorRT's own configuration of a context, right before it makes one. So is what measures a context.
"""

from __future__ import annotations

import time
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

    def make(engine: Any, config: Any) -> Any:
        config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        if mode.lazy:
            lazy = trt.DynamicShapesKernelSpecializationStrategy.LAZY
            config.dynamic_shapes_kernel_specialization_strategy = lazy
        return engine.create_execution_context(config)

    _make_contexts(trt, make)


def time_enqueues(load: Callable[[], Any]) -> list[float]:
    """The seconds that each run takes of the CPU, of every engine that this process reads from now on.

    Until the card has its work, that is: what a step takes beyond it is spent waiting for the card.

    Args:
        load: gives the bindings.

    Returns:
        A list that grows with every run.
    """
    seconds: list[float] = []

    def make(engine: Any, config: Any) -> Any:
        context = engine.create_execution_context(config)
        return None if context is None else _TimedContext(context, seconds)

    _make_contexts(load(), make)
    return seconds


def _make_contexts(trt: Any, make: Callable[[Any, Any], Any]) -> None:
    """Contexts are what `make` gives for (engine, configuration)."""

    class Wrapped(trt.Runtime):  # type: ignore[misc]  # the module is a value here
        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
            engine = super().deserialize_cuda_engine(serialized_engine)
            return None if engine is None else _Engine(engine, make)

    trt.Runtime = Wrapped


class _Engine:
    """An engine in all but the making of contexts."""

    def __init__(self, engine: Any, make: Callable[[Any, Any], Any]) -> None:
        self._engine, self._make = engine, make

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def create_execution_context(self, config: Any) -> Any:
        return self._make(self._engine, config)


class _TimedContext:
    """A context in all but that its runs are timed."""

    def __init__(self, context: Any, seconds: list[float]) -> None:
        self._context, self._seconds = context, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def execute_async_v3(self, stream: int) -> bool:
        started = time.perf_counter()
        taken = self._context.execute_async_v3(stream)
        self._seconds.append(time.perf_counter() - started)
        return bool(taken)
