from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from elastic_export.bundle.fingerprint import fingerprint


@dataclass(frozen=True)
class Numbers:
    epsilon: float = 1e-5


Tensors = dict[str, np.ndarray]
BIG = np.arange(5000, dtype=np.float32)


def write(folder: Path, *shards: Tensors) -> list[Path]:
    folder.mkdir()
    for i, tensors in enumerate(shards):
        save_file(tensors, folder / f"{i}.safetensors")
    return sorted(folder.iterdir())


@pytest.fixture
def base(tmp_path: Path) -> str:
    return fingerprint(write(tmp_path / "base", {"a": BIG, "b": BIG[:3]}), Numbers())


def test_resharding_and_moving_change_nothing(tmp_path: Path, base: str) -> None:
    shards = write(tmp_path / "other", {"b": BIG[:3]}, {"a": BIG})
    assert fingerprint(shards, Numbers()) == fingerprint(reversed(shards), Numbers()) == base


@pytest.mark.parametrize(
    "change",
    [
        lambda a: {"a": a},
        lambda a: {"a": a, "c": a[:3]},
        lambda a: {"a": a.reshape(50, 100), "b": a[:3]},
        lambda a: {"a": a.view(np.int32), "b": a[:3]},
        lambda a: {"a": a + (np.arange(5000) == 0), "b": a[:3]},
        lambda a: {"a": a + (np.arange(5000) == 4999), "b": a[:3]},
        lambda a: {"a": a, "b": a[3:6]},
    ],
    ids=["missing", "renamed", "shape", "dtype", "first element", "last element", "small tensor"],
)
def test_any_other_weights_are_told_apart(tmp_path: Path, base: str, change: Callable[[np.ndarray], Tensors]) -> None:
    kinds = (np.float32, np.int32)  # adding a bool made it float64
    tensors = {name: a if a.dtype in kinds else a.astype(np.float32) for name, a in change(BIG).items()}
    assert fingerprint(write(tmp_path / "other", tensors), Numbers()) != base


def test_another_epsilon_is_another_model(tmp_path: Path, base: str) -> None:
    assert fingerprint([tmp_path / "base" / "0.safetensors"], Numbers(1e-6)) != base


def test_it_says_what_it_does_not_see(tmp_path: Path, base: str) -> None:
    middle = BIG + (np.arange(5000) == 2500)
    shards = write(tmp_path / "other", {"a": middle.astype(np.float32), "b": BIG[:3]})
    assert fingerprint(shards, Numbers()) == base
