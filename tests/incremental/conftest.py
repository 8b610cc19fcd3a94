"""A checkpoint, and what was done in exports of it; see repeated_export.py."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.bundle import built, proof
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.budget import Budget
from repeated_export import ARCH, BUDGETS, Seen, write_budgets
from synthetic import write_checkpoint


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What the last export did."""
    result, verify = Seen(), proof.verify_budgets

    def verify_budgets(oracle: Any, subjects: Any) -> Any:
        result.verified += [subject.budget.name for subject in subjects]
        return verify(oracle, subjects)

    monkeypatch.setattr(built, "build_engine", result.build)
    monkeypatch.setattr(proof, "verify_budgets", verify_budgets)
    return result


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that nobody has touched for a while, as remembered digests want it."""
    folder = tmp_path_factory.mktemp("parent") / "tiny"
    write_checkpoint(folder, ARCH, random_weights(ARCH, np.random.default_rng(3)), [Budget.full(ARCH, "full")])
    write_budgets(folder, BUDGETS)
    (folder / "LICENSE").write_text("None.\n")
    for file in folder.iterdir():
        os.utime(file, (1_600_000_000, 1_600_000_000))
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, parent: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(parent, tmp_path / "tiny"))
