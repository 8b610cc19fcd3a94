"""What lies beside a quantised file until its bundle is published: read by an export that it serves, or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.weights.counted import Kept
from elastic_export.weights.weight_loss import LostRow, WeightTally

ARCH = Architecture("M-*", 62, 24, (40,), (4,), 8, 2, 8, 4, 4, 2, 16, 1e-5, (0.0, math.inf))
FULL = Budget.full(ARCH, "full")
SMALL = replace(FULL, name="small", hidden_size=20)
LOST = {"full": WeightTally(1 / 3, 2.0, (LostRow("w", 1, 0.1),)), "small": WeightTally(0.25, 1.5)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "q8-00001-of-00001.json"
    kept(FULL, SMALL).write(path, b"p", LOST)
    assert [left.name for left in tmp_path.iterdir()] == [path.name]
    return path


def kept(*budgets: Budget) -> Kept:
    return Kept(ARCH, "backbone", budgets)


def test_every_digit_comes_back(file: Path) -> None:
    assert kept(FULL, SMALL).read(file, b"p") == LOST


def test_it_serves_an_export_of_some_of_its_budgets_whatever_they_are_called(file: Path) -> None:
    assert kept(replace(SMALL, name="6b.int8")).read(file, b"p") == {"6b.int8": LOST["small"]}


def test_not_another_file_or_a_budget_that_keeps_something_else(file: Path) -> None:
    assert kept(FULL).read(file, b"q") is None
    assert kept(FULL, replace(SMALL, hidden_size=22)).read(file, b"p") is None
    assert kept(FULL).read(file.with_name("none.json"), b"p") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d | {"schema": "elastic-q8-losses/2"},
        lambda d: d | {"more": 1},
        lambda d: d | {"losses": [1]},
        lambda d: [d],
        lambda d: json.dumps(d)[:-9],
    ],
)
def test_not_what_is_damaged_or_of_another_version(file: Path, change: Callable[[Any], Any]) -> None:
    changed = change(json.loads(file.read_text()))
    file.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    assert kept(FULL, SMALL).read(file, b"p") is None
