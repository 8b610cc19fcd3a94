"""The files of a parent in eight bits: what is in them, what a budget slices of them, and what a later run takes up."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits
from elastic_export.weights import quantised as room
from elastic_export.weights.quantised import Quantised, is_quantised_file
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.safetensors import read_header
from synthetic import write_checkpoint

ARCH = Architecture("M-*", 62, 24, (40,), (4,), 8, 2, 8, 4, 4, 2, 16, 1e-5, (0.0, math.inf))
LEAD = "backbone.layers."


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    weights = random_weights(ARCH, np.random.default_rng(0))
    write_checkpoint(tmp_path / "c", ARCH, weights, [Budget.full(ARCH, "full")], "bf16", 2, fp32_vectors=True)
    for path in (tmp_path / "c").iterdir():
        os.utime(path, ns=(10**18, 10**18))  # long ago
    return Checkpoint.open(tmp_path / "c")


@pytest.fixture
def parent(checkpoint: Checkpoint) -> Callable[..., Quantised]:
    def make(**more: Any) -> Quantised:
        eight_bits = EightBits.of(ARCH, checkpoint.budgets.values())
        return Quantised(
            checkpoint, eight_bits, **({"precision": "bf16", "parent": "p", "max_file_bytes": 4000} | more)
        )

    return make


def written(parent: Quantised, folder: Path) -> dict[str, str | None]:
    heard: dict[str, str | None] = {}
    folder.mkdir(exist_ok=True)
    parent.write(folder, lambda path, digest: heard.update({path.name: digest}))
    return heard


def test_what_the_files_hold(checkpoint: Checkpoint, parent: Callable[..., Quantised], tmp_path: Path) -> None:
    """Read by the reference implementation of the format."""
    heard = written(parent(), tmp_path / "q")
    files = sorted((tmp_path / "q").iterdir())
    assert [path.name for path in files] == list(heard)
    assert len(files) > 2
    assert all(is_quantised_file(f"weights/{path.name}") for path in files)
    assert list(heard.values()) == [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    tensors = {name: array for path in files for name, array in safetensors.numpy.load_file(path).items()}
    wide = {name: checkpoint.read(name).astype(np.float32) for name in checkpoint.tensors}

    def expected(rows: Any) -> tuple[Any, Any]:
        scale = np.abs(rows).max(axis=1) / np.float32(127)
        return np.round(rows / scale[:, None]), scale * 128

    qkv = np.concatenate([wide[f"{LEAD}2.mixer.{name}_proj.weight"] for name in "qkv"])
    for name, rows, turned in [
        ("backbone.embeddings.weight", wide["backbone.embeddings.weight"], False),
        (f"{LEAD}0.mixer.in_proj.weight", wide[f"{LEAD}0.mixer.in_proj.weight"], True),
        (f"{LEAD}2.mixer.qkv_proj.weight", qkv, True),
        ("lm_head.weight", wide["lm_head.weight"], True),
    ]:
        values, scales = expected(rows)
        np.testing.assert_array_equal(tensors[f"{name}.int8"], values.T if turned else values)
        np.testing.assert_array_equal(tensors[f"{name}.scale"], scales)
    stays = {n for n in wide if not any(n in m.names for m in EightBits.of(ARCH, []).matrices)}
    assert {n for n in tensors if not n.endswith((".int8", ".scale"))} == stays
    for name in stays:
        assert tensors[name].tobytes() == checkpoint.read(name).tobytes(), name


def test_where_each_tensor_lies(parent: Callable[..., Quantised], tmp_path: Path) -> None:
    written(parent(), tmp_path)
    found = parent().found(tmp_path)
    assert found is not None
    for name, tensor in found.items():
        entry = read_header(tensor.file)[name]
        assert (tensor.dtype, tensor.shape, tensor.offset) == (entry.dtype, entry.shape, entry.offset)


def test_a_run_takes_up_what_another_left(
    parent: Callable[..., Quantised], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, real = list[str](), room.quantised

    def dies(checkpoint: Any, matrix: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(matrix.name)
        return real(checkpoint, matrix)

    monkeypatch.setattr(room, "quantised", dies)
    with pytest.raises(KeyboardInterrupt):
        written(parent(), tmp_path / "q")
    left = sorted(path.name for path in (tmp_path / "q").glob("*.safetensors"))
    assert left
    assert parent().found(tmp_path / "q") is None
    monkeypatch.setattr(room, "quantised", real)
    heard = written(parent(), tmp_path / "q")
    assert [name for name, digest in heard.items() if digest is None] == left  # not written again
    whole = written(parent(), tmp_path / "whole")
    for name in whole:
        assert (tmp_path / "q" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("other", [{"parent": "another"}, {"precision": "fp32"}, {"max_file_bytes": 5000}])
def test_files_of_another_parent_are_not_taken(
    parent: Callable[..., Quantised], tmp_path: Path, other: dict[str, Any]
) -> None:
    written(parent(), tmp_path)
    assert parent(**other).found(tmp_path) is None
    again = written(parent(**other), tmp_path)
    assert again == written(parent(**other), tmp_path / "new") or other == {"precision": "fp32"}
    assert any(again.values())


def test_files_older_than_the_shards_are_not_taken_up(
    parent: Callable[..., Quantised], tmp_path: Path, checkpoint: Checkpoint
) -> None:
    heard = written(parent(), tmp_path)
    os.utime(checkpoint.shards[0])
    assert written(parent(), tmp_path) == heard


def test_a_file_of_another_size_is_not_taken(parent: Callable[..., Quantised], tmp_path: Path) -> None:
    heard = written(parent(), tmp_path)
    name = next(iter(heard))
    with (tmp_path / name).open("ab") as file:
        file.write(b"x")
    assert parent().found(tmp_path) is None
    assert written(parent(), tmp_path)[name] == heard[name]


def test_what_nobody_will_take_up_is_removed(parent: Callable[..., Quantised], tmp_path: Path) -> None:
    """Files of another division, and one that was not finished; nothing that is not of this kind."""
    folder = tmp_path / "q"
    before = written(parent(max_file_bytes=2000), folder)
    (folder / "q8-00007-of-00009.part").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    heard = written(parent(), folder)
    assert not before.keys() & heard.keys()
    assert {path.name for path in folder.iterdir()} == {*heard, "notes.txt"}


def test_a_weight_that_is_no_number_is_named(tmp_path: Path) -> None:
    weights = random_weights(ARCH, np.random.default_rng(0))
    weights[f"{LEAD}1.mixer.up_proj.weight"][3, 4] = np.nan
    write_checkpoint(tmp_path / "c", ARCH, weights, [Budget.full(ARCH, "full")], "bf16")
    parent = Quantised(Checkpoint.open(tmp_path / "c"), EightBits.of(ARCH, []), precision="bf16", parent="p")
    with pytest.raises(InputError, match=r"tensor 'backbone.layers.1.mixer.up_proj.weight': .*found nan"):
        written(parent, tmp_path / "q")
    assert not list((tmp_path / "q").glob("*.safetensors"))


def test_a_folder_that_cannot_be_written_is_named(parent: Callable[..., Quantised], tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"missing: expected to write the quantised parent"):
        parent().write(tmp_path / "missing", lambda path, digest: None)
