"""The generator of large random checkpoints, on a small one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import random_checkpoint as module
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_runtime.errors import InputError
from random_checkpoint import SHAPES, Shape, delete_random_checkpoint, write_random_checkpoint
from random_demo import ARCHITECTURE, BUDGETS
from synthetic import write_sparse_checkpoint

SMALL = Shape(replace(ARCHITECTURE, vocab_size=2000), BUDGETS, 2)


def test_every_tensor_has_the_scale_of_ordinary_random_weights_and_no_two_rows_are_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 1 << 14)  # so that matrices repeat it
    checkpoint = Checkpoint.open(write_random_checkpoint(tmp_path / "c", SMALL))
    wanted = random_weights(SMALL.architecture, np.random.default_rng(1))
    assert (len(checkpoint.shards), set(checkpoint.budgets)) == (2, set(BUDGETS["budgets"]))
    for name, reference in wanted.items():
        array = checkpoint.read(name).astype(np.float32)
        assert np.isfinite(array).all()
        if array.size > 4000:
            assert array.std() == pytest.approx(reference.std(), rel=0.1), name
            assert len(np.unique(array.reshape(len(array), -1), axis=0)) == len(array), name


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    one, two, other = (write_random_checkpoint(tmp_path / str(i), SMALL, seed) for i, seed in enumerate((3, 3, 4)))
    first = {path.name: path.read_bytes() for path in one.iterdir()}
    assert first == {path.name: path.read_bytes() for path in two.iterdir()}
    assert first != {path.name: path.read_bytes() for path in other.iterdir()}


def test_a_disk_that_is_too_small_is_refused_with_figures_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000_000_000))
    with pytest.raises(InputError, match=r"expected 26\.\d GB free for the checkpoint, found 20\.0 GB"):
        write_random_checkpoint(tmp_path / "c", SHAPES["12b"])
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_else_made_is_neither_replaced_nor_deleted(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/file").touch()
    with pytest.raises(InputError, match="expected no such folder yet"):
        write_random_checkpoint(tmp_path / "own", SMALL)
    with pytest.raises(InputError, match="expected a checkpoint made here, found something else"):
        delete_random_checkpoint(tmp_path / "own")
    assert (tmp_path / "own/file").exists()
    made = write_random_checkpoint(tmp_path / "c", SMALL)
    delete_random_checkpoint(made)
    assert not made.exists()


@pytest.mark.parametrize("name", SHAPES)
def test_the_shapes_are_what_their_names_say_and_their_budgets_fit_them(tmp_path: Path, name: str) -> None:
    shape = SHAPES[name]
    write_sparse_checkpoint(tmp_path / name, shape.architecture, shape.budgets, shape.shards)
    checkpoint = Checkpoint.open(tmp_path / name)
    billions = float(name.replace("b", ".") if not name.endswith("b") else name[:-1])
    assert shape.architecture.parameters() / 1e9 == pytest.approx(billions, rel=0.06)
    assert name in checkpoint.budgets
