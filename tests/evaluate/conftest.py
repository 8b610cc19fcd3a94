"""The small checkpoint with a tokenizer, and the text as it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate import runner
from elastic_export.evaluate.passage import Passage, read_passage
from elastic_export.verify import way
from elastic_runtime.text.tokenizer import Tokenizer
from small_text_model import ARCH, write_source


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors here are tiny: threads cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint; read-only by agreement."""
    return write_source(tmp_path_factory.mktemp("evaluate") / "model")


@pytest.fixture
def own_source(tmp_path: Path) -> Callable[..., Path]:
    """`own_source(change)`: another one to spoil; `change(weights)` does it before they are written."""

    def write(change: Callable[[dict[str, Any]], None] = lambda weights: None) -> Path:
        return write_source(tmp_path / "model", change)

    return write


@pytest.fixture
def checkpoint(source: Path) -> Checkpoint:
    """It, opened."""
    return Checkpoint.open(source)


@pytest.fixture
def passage_of(tmp_path: Path, source: Path) -> Callable[..., Passage]:
    """`passage_of(text, context=64, …)`: the text as it is scored."""

    def read(text: str, context: int = 64, **options: Any) -> Passage:
        (tmp_path / "text.txt").write_bytes(text.encode())
        return read_passage(tmp_path / "text.txt", Tokenizer(source), vocab=264, context=context, **options)

    return read


@pytest.fixture
def cut_finely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens a call and together, few rows of the head at once: every border is crossed."""
    monkeypatch.setattr(runner, "TOGETHER", 50)
    monkeypatch.setattr("elastic_export.evaluate.evaluate.TOGETHER", 37)
    monkeypatch.setattr(runner, "_CALL", 20)
    monkeypatch.setattr(way, "_BLOCK", 50 * ARCH.hidden_size)
