"""What a session needs of whatever runs a model: one call, its states kept where they are.

Backends: ort/backend_onnx.py (onnxruntime) and tensorrt/backend_tensorrt.py (an engine on a card).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from elastic_runtime.errors import InputError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
DeviceName = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Origin:
    """What a backend runs: the digest of its bundle's manifest, and the budget's name; empty where it has none."""

    bundle: str = ""
    budget: str = ""


class SavedStates(Protocol):
    """A copy of all states, of the kind of the backend that made it. `device` is where it lies."""

    device: DeviceName

    @property
    def nbytes(self) -> int:
        """What it takes there."""

    def free(self) -> None:
        """Give its memory back; again does nothing. So does the end of the last reference to it."""


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
    origin: Origin

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

    def save(self, rows: int, device: DeviceName) -> SavedStates:
        """A copy of every state, of caches the first `rows` rows, in the memory of its own device or of the CPU."""

    def load(self, saved: SavedStates) -> None:
        """Put the states back as they were, where as many sequences are under way; the copy stays as it is.

        Raises InputError, and nothing has changed, about one that another kind of backend made, of states of another
        shape or dtype, or one that was freed.
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


def not_of_this_backend(found: str, todo: str = "prefill again") -> InputError:
    """For saved states that a backend cannot load."""
    return InputError("snapshot", expected="states that this backend saved, or one like it", found=found, todo=todo)
