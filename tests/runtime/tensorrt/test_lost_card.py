"""A card that disappears while an engine runs, or fails in a way that CUDA keeps: whose error that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elastic_runtime.driver.device import ALIGNMENT, Arena
from elastic_runtime.errors import BuildError
from elastic_runtime.format.manifest import EngineEntry, InputPort, OutputPort
from elastic_runtime.session import Session
from elastic_runtime.tensorrt.backend_tensorrt import EngineBackend, Executors


class Card:
    """A device that computes nothing; `lost` is what waiting for it finds."""

    stream = 1

    def __init__(self) -> None:
        self.lost = ""
        self.taken = 0

    def allocate(self, nbytes: int) -> int:
        self.taken += -(-nbytes // ALIGNMENT) * ALIGNMENT
        return ALIGNMENT + self.taken

    def synchronize(self) -> None:
        if self.lost:
            raise BuildError("card 0", expected="cuStreamSynchronize to succeed", found=self.lost)

    def host_buffer(self, nbytes: int) -> Any:
        return np.zeros(nbytes, np.uint8)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Engine:
    """Runs, until it refuses to."""

    def __init__(self) -> None:
        self.refuses = False

    def capturable(self, stream: int) -> bool:
        return True

    def enqueue(self, stream: int) -> None:
        if self.refuses:
            raise BuildError("x.engine", expected="the engine to take to run", found="a refusal (see its log above)")

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.fixture
def entry() -> EngineEntry:
    entry = EngineEntry.__new__(EngineEntry)
    values = {
        "file": "x.engine",
        "inputs": (InputPort("input_ids", "int64", ("B", "T")), InputPort("length", "int64", ("B",))),
        "outputs": (OutputPort("logits", "float32", ("B", 5), None, None),),
        "max_tokens": 4,
        "max_context": 20,
        "max_batch": 1,
    }
    inputs = (*values["inputs"], InputPort("position", "int64", ("B",)))  # type: ignore[misc]
    for name, value in (values | {"inputs": inputs}).items():
        object.__setattr__(entry, name, value)
    return entry


def _backend(entry: EngineEntry, card: Card, engine: Engine) -> EngineBackend:
    executors = Executors((engine, engine), engine, replays=True)  # type: ignore[arg-type]
    return EngineBackend(entry, card, executors, Arena(card, {}), batch=1, vocab_size=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [[[1, 2, 3]], [[1]]])
@pytest.mark.parametrize(
    ("lost", "subject"),
    [("CUDA_ERROR_LAUNCH_FAILED (719)", "card 0"), ("CUDA_ERROR_UNKNOWN (999)", "card 0"), ("", "x.")],
)
def test_the_card_is_named_where_it_failed_and_the_engine_where_it_did_not(
    entry: EngineEntry, ids: list[list[int]], lost: str, subject: str
) -> None:
    card, engine = Card(), Engine()
    session = Session(_backend(entry, card, engine))
    session.prefill(ids)
    engine.refuses, card.lost = True, lost
    with pytest.raises(BuildError) as caught:
        session.prefill(ids)
    assert caught.value.subject.startswith(subject)
    assert caught.value.found == (lost or "a refusal (see its log above)")
    assert len(session.tokens[0]) == len(ids[0])  # what failed is no part of the transcript
    card.lost = ""
    session.close()


def test_what_failed_first_is_told_and_not_what_closing_met(entry: EngineEntry) -> None:
    card = Card()
    session = Session(_backend(entry, card, Engine()))

    def use() -> None:
        with session:
            card.lost = "CUDA_ERROR_LAUNCH_FAILED (719)"
            raise BuildError("card 0", expected="cuMemcpyDtoHAsync_v2 to succeed", found=card.lost)

    with pytest.raises(BuildError, match="cuMemcpyDtoHAsync_v2"):
        use()
    other = Card()
    with pytest.raises(BuildError, match="cuStreamSynchronize to succeed"), Session(_backend(entry, other, Engine())):
        other.lost = "CUDA_ERROR_LAUNCH_FAILED (719)"
