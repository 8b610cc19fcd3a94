"""The ways that decode steps run, set on contexts before TensorRT makes them."""

from __future__ import annotations

from typing import Any

import pytest

from elastic_runtime.bringup.modes import EAGER, LAZY, MODES, OWN_CAPTURE, WHOLE_GRAPH, pin, time_enqueues
from rtx_stand_in import load_stand_in


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = load_stand_in()
    module.WORLD.reset()
    monkeypatch.setattr(module, "Runtime", module.Runtime)  # put back afterwards
    return module


def _context(trt: Any) -> Any:
    """As the runtime makes one for decode: with a graph of TensorRT's own, kernels before the first step."""
    engine = trt.Runtime(trt.ILogger()).deserialize_cuda_engine(b"engine")
    config = engine.create_runtime_config()
    config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    return engine.create_execution_context(config)


@pytest.mark.parametrize(
    ("mode", "graphs", "kernels"),
    [
        (EAGER, "DISABLED", "EAGER"),
        (LAZY, "DISABLED", "LAZY"),
        (OWN_CAPTURE, "DISABLED", "EAGER"),
        (WHOLE_GRAPH, "WHOLE_GRAPH_CAPTURE", "EAGER"),
    ],
)
def test_a_context_is_made_in_the_mode(trt: Any, mode: str, graphs: str, kernels: str) -> None:
    pin(lambda: trt, MODES[mode])
    context = _context(trt)
    assert (context._graphs.name, context._kernels.name) == (graphs, kernels)


def test_the_bindings_are_not_loaded_for_the_mode_that_a_session_has(trt: Any) -> None:
    before = trt.Runtime
    pin(lambda: pytest.fail("loaded"), MODES[WHOLE_GRAPH])
    assert trt.Runtime is before


def test_every_run_of_a_context_is_timed(trt: Any) -> None:
    seconds = time_enqueues(lambda: trt)
    context = _context(trt)
    assert [context.execute_async_v3(7) for _ in range(3)] == [True] * 3
    assert len(seconds) == 3
    assert min(seconds) > 0
    assert trt.WORLD.calls("IExecutionContext.execute_async_v3") == [(0, 7)] * 3
    trt.WORLD.answers["IExecutionContext.execute_async_v3"] = False
    assert context.execute_async_v3(7) is False


def test_a_context_that_is_refused_stays_none(trt: Any) -> None:
    time_enqueues(lambda: trt)
    trt.WORLD.answers["ICudaEngine.create_execution_context"] = None
    assert _context(trt) is None


def test_an_engine_that_is_refused_stays_none(trt: Any) -> None:
    pin(lambda: trt, MODES[LAZY])
    trt.WORLD.answers["Runtime.deserialize_cuda_engine"] = None
    assert trt.Runtime(trt.ILogger()).deserialize_cuda_engine(b"engine") is None


def test_the_real_bindings_take_a_runtime_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """And go on refusing what is no engine: what a subclass in Python may do is theirs to say."""
    real = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    monkeypatch.setattr(real, "Runtime", real.Runtime)
    pin(lambda: real, MODES[EAGER])
    heard: list[str] = []

    class Logger(real.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            real.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            heard.append(text)

    logger = Logger()
    runtime = real.Runtime(logger)
    assert type(runtime).__name__ == "Wrapped"
    assert runtime.deserialize_cuda_engine(b"no engine" * 100) is None
    assert heard
