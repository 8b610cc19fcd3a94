"""What a call asks of TensorRT besides the run: an engine of the 12B's shape has 71 inputs, and each is a call."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import numpy as np

from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.device import ALIGNMENT
from elastic_runtime.session import Session
from elastic_runtime.tensorrt.backend_tensorrt import EngineBackend, Executors


def _device() -> Any:
    device = MagicMock(stream=1)
    device.allocate.return_value = ALIGNMENT
    device.host_buffer.side_effect = lambda nbytes: np.zeros(nbytes, np.uint8)
    return device


def test_a_prompt_gives_the_shapes_of_what_is_as_long_as_it_and_of_nothing_else(demo_bundle: Any) -> None:
    budget = Bundle.open(demo_bundle).budget("large")
    entry, decode, prefill = budget.engines[0], MagicMock(), MagicMock()
    weights = MagicMock(addresses={}, nbytes=0)
    executors = Executors((decode, decode), prefill, replays=True)
    backend = EngineBackend(entry, _device(), executors, weights, batch=2, vocab_size=budget.widths.vocab_size)
    session = Session(backend, batch=2)
    every = {port.name for port in entry.inputs}
    assert {call.args[0] for call in prefill.set_shape.call_args_list} == every
    for rows, length in (([[1] * 3, [2] * 2], 16), ([[3] * 60, [1]], 64)):
        prefill.set_shape.reset_mock()
        session.prefill(rows)
        prefill.set_shape.assert_called_once_with("input_ids", (2, length))
    prefill.set_shape.reset_mock()
    session.reset(1)  # of one row: every shape is another
    assert {call.args[0] for call in prefill.set_shape.call_args_list} == every
    session.prefill([[1, 2, 3]])
    assert prefill.set_shape.call_args.args == ("input_ids", (1, 16))
