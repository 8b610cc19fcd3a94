"""The checkpoint whose best budgets are known, the text, and a way to propose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate.passage import Passage, read_passage
from elastic_export.progress import Progress
from elastic_export.propose.grid import Grid
from elastic_export.propose.measuring import Measuring
from elastic_export.propose.propose import Proposal, Request, propose
from elastic_export.propose.store import Store
from elastic_export.propose.target import Target, parameter_measure
from elastic_runtime.text.tokenizer import Tokenizer
from small_text_model import TEXT
from sorted_model import write_sorted


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
    return write_sorted(tmp_path_factory.mktemp("propose") / "model")


@pytest.fixture
def checkpoint(source: Path) -> Checkpoint:
    """It, opened."""
    return Checkpoint.open(source, require_budgets=False)


@pytest.fixture
def passage(tmp_path: Path, source: Path) -> Passage:
    """The text as it is scored, in two windows."""
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    return read_passage(tmp_path / "text.txt", Tokenizer(source), vocab=264, context=40, tokens=70)


@pytest.fixture
def measuring(checkpoint: Checkpoint, tmp_path: Path) -> Measuring:
    """What measures its cuts."""
    grid = Grid(checkpoint.architecture, "bf16")
    return Measuring(checkpoint, grid, Store(tmp_path / "out.partial", {}), Progress())


@pytest.fixture
def proposed(passage: Passage, tmp_path: Path) -> Callable[..., Proposal]:
    """`proposed(checkpoint, limit, …, rounds=2)`: budgets of at most so many parameters, named by their number."""

    def run(checkpoint: Checkpoint, *limits: int, rounds: int = 2, store: Store | None = None) -> Proposal:
        grid = Grid(checkpoint.architecture, "bf16")
        targets = [Target(f"b{number}", limit) for number, limit in enumerate(limits)]
        request = Request(targets, parameter_measure(), passage, passage, rounds)
        kept = Store(tmp_path / "out.partial", {}) if store is None else store
        return propose(request, grid, Measuring(checkpoint, grid, kept, Progress()), Progress())

    return run
