"""What a session needs of whatever runs a model: one call, its states kept where they are.

Backends: ort/backend_onnx.py (onnxruntime) and tensorrt/backend_tensorrt.py (an engine on a card).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from elastic_runtime.errors import InputError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
DeviceName = Literal["cpu", "gpu"]


class Backend(Protocol):
    """Runs one sub-model for a batch of sequences and keeps their states between calls.

    `max_tokens` bounds T of a call, `max_context` position + T, `max_batch` the batch; `device` is where it computes.
    """

    name: str
    device: DeviceName
    max_tokens: int
    max_context: int
    max_batch: int
    vocab_size: int

    def start(self, batch: int) -> None:
        """Forget all sequences and begin `batch` new ones."""

    def call_size(self, wanted: int, most: int) -> int:
        """T of the next call where a row has `wanted` tokens to feed and `most` fit behind every row, both at least 1.

        At most `most` and `max_tokens`. More than `wanted`: padding, where another T would cost more than that.
        """

    def call(self, input_ids: Ints, position: Ints, length: Ints) -> Floats:
        """One call of the interface: ids [B, T], position [B], length [B] -> logits [B, V] of each last real token.

        Rows of length 0 keep their states; their logits are unspecified. The result is valid until the next call.
        """

    def states(self) -> Mapping[str, npt.NDArray[Any]]:
        """A copy of every state by its input name, for comparisons."""

    def memory(self) -> Mapping[str, int]:
        """Bytes by purpose: weights, states, scratch."""

    def close(self) -> None:
        """Give everything back. Closing again does nothing; any other call raises what `closed` gives."""


def closed(name: str) -> InputError:
    """For a backend that is used after its end."""
    return InputError(f"{name} backend", expected="an open one", found="one that was closed", todo="open a new session")
