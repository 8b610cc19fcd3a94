"""Which files hold the weights, in the layouts that people's tools leave: one file, an index, both, neither."""

from __future__ import annotations

import errno
import json
import os
import shutil
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
from elastic_runtime.errors import InputError
from synthetic import write_checkpoint

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 17078330\n"


@pytest.fixture
def whole(tmp_path: Path, parent: Architecture) -> Path:
    """A checkpoint of one file."""
    weights = random_weights(parent, np.random.default_rng(7))
    return write_checkpoint(tmp_path / "whole", parent, weights, [Budget.full(parent, "full")])


def tensors_of(folder: Path) -> dict[str, bytes]:
    checkpoint = Checkpoint.open(folder)
    return {name: checkpoint.read(name).tobytes() for name in checkpoint.tensors}


def write_map(folder: Path, places: dict[str, str], **more: Any) -> None:
    (folder / INDEX).write_text(json.dumps({**more, "weight_map": places}))


def test_an_index_of_the_one_file_beside_it_is_read(whole: Path) -> None:
    before = tensors_of(whole)
    for metadata in ({"total_size": 10**40}, None):
        write_map(whole, dict.fromkeys(before, SINGLE), metadata=metadata)
        assert tensors_of(whole) == before


def test_an_index_of_others_beside_the_one_file_is_refused(whole: Path, folder: Path) -> None:
    shutil.copy(folder / INDEX, whole)
    with pytest.raises(InputError, match=f"found both, and the index names {FIRST}, {SECOND} alone. Remove the one"):
        Checkpoint.open(whole)


@pytest.mark.parametrize("name", ["model-00001-of-00001.safetensors", "consolidated.safetensors", "Model.safetensors"])
def test_the_only_file_is_read_whatever_it_is_called(whole: Path, name: str) -> None:
    before = tensors_of(whole)
    (whole / SINGLE).rename(whole / name)
    assert tensors_of(whole) == before


def test_a_whole_set_of_shards_needs_no_index(folder: Path) -> None:
    before = tensors_of(folder)
    (folder / INDEX).unlink()
    assert tensors_of(folder) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / SECOND).unlink(), f"found {FIRST}, and no index. Download what is missing of the shards, or"),
        (lambda f: (f / FIRST).rename(f / "a.safetensors"), f"found a.safetensors, {SECOND}, and no index. Download"),
        (
            lambda f: ((f / FIRST).rename(f / "a.safetensors"), (f / SECOND).rename(f / "b.safetensors")),
            f"found a.safetensors, b.safetensors, and no index. Write {INDEX}, or keep one whole set of shards alone.",
        ),
        (
            lambda f: (f / "model.safetensors.index.fp8.index.json").write_text("{}") and (f / SECOND).unlink(),
            f"found {FIRST}, model.safetensors.index.fp8.index.json, and no index.",
        ),
        (
            lambda f: shutil.copy(f / FIRST, f / "consolidated.safetensors"),
            f"found consolidated.safetensors, {FIRST}, {SECOND}, and no index.",
        ),
        (
            lambda f: ((f / FIRST).rename(f / "pytorch_model.bin"), (f / SECOND).unlink()),
            "found neither, but pytorch_model.bin. Save the checkpoint as safetensors: transformers' save_pretrained",
        ),
        (
            lambda f: ((f / FIRST).rename(f / "model-Q4_K_M.gguf"), (f / SECOND).unlink()),
            "found neither, but model-Q4_K_M.gguf. Export the checkpoint that it was made from: what such a file holds",
        ),
        (
            lambda f: ((f / FIRST).unlink(), (f / SECOND).unlink()),
            "found neither. Name the folder that holds the checkpoint's shards, or download it again.",
        ),
    ],
)
def test_what_is_there_without_an_index_is_listed(folder: Path, change: Callable[[Path], Any], message: str) -> None:
    (folder / INDEX).unlink()
    change(folder)
    with pytest.raises(InputError) as caught:
        Checkpoint.open(folder)
    assert message in str(caught.value)


def test_a_tensor_in_two_shards_without_an_index_is_refused(folder: Path) -> None:
    (folder / INDEX).unlink()
    name = "backbone.embeddings.weight"
    tensors = safetensors.numpy.load_file(folder / SECOND)
    safetensors.numpy.save_file({**tensors, name: np.zeros((2, 2), np.float32)}, folder / SECOND)
    with pytest.raises(InputError, match=f"tensor '{name}': expected it once, found it in {FIRST} and in {SECOND}"):
        Checkpoint.open(folder)


def test_files_beside_the_shards_are_listed(folder: Path) -> None:
    assert Checkpoint.open(folder).warnings == ()
    for name in ("consolidated.safetensors", "pytorch_model.bin", "model.Q4.gguf", "training_args.txt"):
        (folder / name).write_bytes(b"x")
    assert Checkpoint.open(folder).warnings == (
        f"{folder}: not read: consolidated.safetensors, model.Q4.gguf, pytorch_model.bin; the tensors are those of "
        f"{FIRST}, {SECOND}",
    )


def test_a_tokenizer_that_is_not_read_is_listed(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(b"x")
    (folder / "vocab.json").write_bytes(b"{}")
    [warning] = Checkpoint.open(folder).warnings
    assert "tokenizer.model, vocab.json without tokenizer.json, which alone is read" in warning
    (folder / "tokenizer.json").write_bytes(b"{}")
    assert Checkpoint.open(folder).warnings == ()


@pytest.mark.parametrize("name", [FIRST, INDEX, "config.json", "elastic_config.json"])
def test_a_git_lfs_pointer_is_called_one(folder: Path, name: str) -> None:
    (folder / name).write_bytes(POINTER)
    with pytest.raises(InputError) as caught:
        Checkpoint.open(folder)
    assert str(caught.value).startswith(
        f"{folder / name}: expected the file itself, found a Git LFS pointer in its place"
    )
    assert "git lfs pull" in caught.value.todo


@pytest.mark.parametrize("name", [FIRST, INDEX, "config.json", "elastic_config.json", SINGLE])
def test_a_link_to_nothing_is_no_missing_file(folder: Path, name: str) -> None:
    """As an interrupted download leaves them in the cache."""
    (folder / name).unlink(missing_ok=True)
    if name == SINGLE:
        (folder / INDEX).unlink()
    (folder / name).symlink_to("../blobs/0123")
    with pytest.raises(
        InputError, match=r"expected a file, found a link to one that is not there\. Download"
    ) as caught:
        Checkpoint.open(folder)
    assert str(caught.value).startswith(str(folder / name))


@pytest.mark.parametrize("name", [FIRST, INDEX, "config.json", "elastic_config.json"])
def test_a_file_of_somebody_else_is_named(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, who runs tests in containers, may read everything: the refusal is the system's, word for word."""
    ours = Path.open

    def theirs(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return ours(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", theirs)
    with pytest.raises(
        InputError, match=r"expected a file that can be read, found Permission denied\. Change"
    ) as caught:
        Checkpoint.open(folder)
    assert str(caught.value).startswith(str(folder / name))


def test_ignored_tensors_need_not_agree_with_the_index(folder: Path) -> None:
    """What lifts a check lifts it wherever it is made."""
    tensors = safetensors.numpy.load_file(folder / FIRST)
    safetensors.numpy.save_file({**tensors, "mtp.a": np.zeros(2, np.float32)}, folder / FIRST)
    places = json.loads((folder / INDEX).read_bytes())["weight_map"]
    write_map(folder, {**places, "mtp.ghost": SECOND})
    with pytest.raises(InputError, match=r"not there: mtp\.ghost"):
        Checkpoint.open(folder)
    with pytest.raises(InputError, match=r"besides: mtp\.a"):
        Checkpoint.open(folder, ignore_tensors=["*.ghost"])
    assert "mtp.a" not in Checkpoint.open(folder, ignore_tensors=["mtp.*"]).tensors
