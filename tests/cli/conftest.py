"""The command line in this process, and a checkpoint of the 12B's shape that takes no room."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from elastic_export.cli.main import main
from small_text_model import TEXT, write_source
from synthetic import BUDGETS_12B, NANO_12B, write_sparse_checkpoint

Run = tuple[int, str, str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: str) -> Run:
        monkeypatch.setattr(sys, "argv", ["elastic-export", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def one_thread() -> None:
    """Models of a few thousand weights are computed sooner so."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two budgets and the parent, with a tokenizer; read-only by agreement."""
    return write_source(tmp_path_factory.mktemp("evaluate") / "model")


@pytest.fixture
def text(tmp_path: Path) -> str:
    """A file to evaluate `model` on."""
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    return str(tmp_path / "text.txt")


@pytest.fixture(scope="session")
def sparse_12b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse") / "Nemotron-Elastic-12B"
    write_sparse_checkpoint(folder, NANO_12B, BUDGETS_12B)
    return folder
