"""The command line in this process, and a checkpoint of the 12B's shape that takes no room."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from elastic_export.cli.main import main
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


@pytest.fixture(scope="session")
def sparse_12b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse") / "Nemotron-Elastic-12B"
    write_sparse_checkpoint(folder, NANO_12B, BUDGETS_12B)
    return folder
