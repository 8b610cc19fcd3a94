"""The onnxruntime backend's edges: its end, a failing call, what an earlier sequence left, weights at odd bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.ort.backend_onnx import OnnxBackend, _bind_weights
from elastic_runtime.ort.onnx_memory import HostMemory
from elastic_runtime.ort.open_onnx import open_onnx


@pytest.fixture
def backend(demo_bundle: Path) -> Iterator[OnnxBackend]:
    bundle = Bundle.open(demo_bundle)
    opened = open_onnx(bundle, bundle.budget("small"), context=64, max_tokens=8, threads=1)
    assert isinstance(opened, OnnxBackend)
    yield opened
    opened.close()


def _step(backend: OnnxBackend, position: int) -> np.ndarray:
    one = np.ones(1, np.int64)
    return backend.call(65 * one[:, None], position * one, one).copy()


def test_closing_again_does_nothing_and_use_after_it_is_a_clear_error(backend: OnnxBackend) -> None:
    backend.start(1)
    backend.close()
    backend.close()
    for use in (lambda: backend.start(1), lambda: _step(backend, 0), backend.states):
        with pytest.raises(InputError) as caught:
            use()
        assert str(caught.value) == (
            "onnxruntime backend: expected an open one, found one that was closed. Open a new session."
        )


def test_what_a_sequence_left_in_the_caches_does_not_reach_the_next(backend: OnnxBackend) -> None:
    backend.start(1)
    clean = _step(backend, 0)
    for bank in backend._banks:
        for buffer in bank.values():
            buffer.read().fill(np.nan)
    backend.start(1)
    assert not any(state.any() for state in backend.states().values())
    assert np.array_equal(_step(backend, 0), clean)


def test_a_failing_call_is_an_error_of_the_runtime(backend: OnnxBackend) -> None:
    class Broken:
        def run_with_iobinding(self, binding: Any) -> None:
            raise RuntimeError("no room left\n")

    backend.start(1)
    for position in range(2):  # both banks' calls are prepared
        _step(backend, position)
    backend.session = Broken()
    with pytest.raises(BuildError) as caught:
        _step(backend, 2)
    told = (
        "onnxruntime: expected the call to succeed, found no room left. Update onnxruntime, and let elastic-run BUNDLE "
    )
    assert str(caught.value) == f"{told}--verify say whether the bundle is whole."


def test_weights_at_any_byte_of_a_file_are_bound_aligned() -> None:
    file = np.arange(33, dtype=np.uint8)
    odd = np.ndarray((4, 2), np.float32, buffer=file.data, offset=1)
    assert not odd.flags.aligned
    value = helper.make_tensor_value_info("x.weight", TensorProto.FLOAT, (4, 2))
    model = helper.make_model(helper.make_graph([], "one", [value], []))
    assert isinstance(model, onnx.ModelProto)
    held = _bind_weights(model, [("x.weight", odd)], HostMemory())["x.weight"].read()
    assert held.flags.aligned
    assert held.tobytes() == odd.tobytes()


def test_calls_here_are_shorter_than_a_card_likes_them(demo_bundle: Path) -> None:
    """The buffers of a call are reckoned with, and grow with it."""
    bundle = Bundle.open(demo_bundle)
    budget = bundle.budget("small")
    for tokens, taken in ((1024, 256), (64, 64)):
        engines = tuple(replace(engine, max_tokens=tokens) for engine in budget.engines)
        with closing(open_onnx(bundle, replace(budget, engines=engines), context=512, threads=1)) as backend:
            assert backend.max_tokens == taken
