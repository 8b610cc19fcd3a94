"""Checkpoints whose tensors or files are not what they should be: what is named, and what may be ignored."""

# ruff: noqa: E501  # a row of a table of messages is read in one line

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from elastic_export.checkpoint.reader import Checkpoint
from elastic_runtime.errors import InputError

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
PLAIN = "expected weights in bf16, fp16 or fp32, or as ModelOpt stores FP8 (per tensor) and NVFP4"


def resave(folder: Path, shard: str, change: Callable[[dict[str, Any]], None]) -> None:
    tensors = dict(safetensors.numpy.load_file(folder / shard))
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / shard)
    index = json.loads((folder / INDEX).read_bytes())
    kept = {name: file for name, file in index["weight_map"].items() if file != shard}
    index["weight_map"] = kept | dict.fromkeys(tensors, shard)
    (folder / INDEX).write_text(json.dumps(index))


EMBEDDINGS, UP = "backbone.embeddings.weight", "backbone.layers.1.mixer.up_proj.weight"
A_LOG = "backbone.layers.0.mixer.A_log"


def renamed(tensors: dict[str, Any]) -> None:
    tensors["backbone.layers.1.mixer.up_prj.weight"] = tensors.pop(UP)


def as_dtype(name: str, dtype: Any) -> Callable[[dict[str, Any]], None]:
    return lambda tensors: tensors.update({name: tensors[name].astype(dtype)})


TENSOR_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing": (lambda t: t.pop(UP), f"tensors: expected exactly the tensors that config.json asks for, found missing {UP}."),
    "renamed": (renamed, f"found missing {UP} ({UP} renamed to backbone.layers.1.mixer.up_prj.weight?); unknown backbone.layers.1.mixer.up_prj.weight. Rename it back."),
    "renamed, beside a stranger of a nearer name": (
        lambda t: t.update({A_LOG.replace("A_log", "Alogs"): t.pop(A_LOG), A_LOG.replace(".0.", ".10."): np.zeros(1)}),
        f"({A_LOG} renamed to backbone.layers.0.mixer.Alogs?)",
    ),
    "missing, with the like of it in another layer": (
        lambda t: t.update({A_LOG.replace(".0.", ".10."): t.pop(A_LOG)}),
        f"found missing {A_LOG}; unknown {A_LOG.replace('.0.', '.10.')}. Download the checkpoint again",
    ),
    "layers of another network": (
        lambda t: t.update({"mtp.layers.0.mixer.q_proj.weight": np.zeros((2, 2), np.float32)}),
        "If the unknown ones may be left out, name them with --ignore-tensors GLOB.",
    ),
    "extra": (
        lambda t: t.update(router=np.zeros(3, np.float32)),
        "found unknown router. If the unknown ones may be left out, name them with --ignore-tensors GLOB.",
    ),
    "many extra": (lambda t: t.update({f"r{i}": np.zeros(1) for i in range(20)}), "found unknown r0, r1, r10, r11, r12, r13, r14, r15 and 12 more."),
    "a bias": (
        lambda t: t.update({UP.replace("weight", "bias"): np.zeros(37, np.float32)}),
        "found unknown backbone.layers.1.mixer.up_proj.bias.",
    ),
    "wrong shape": (lambda t: t.update({UP: t[UP][:-1]}), f"tensor '{UP}': expected shape [37, 24] by config.json, found [36, 24]."),
    "transposed": (lambda t: t.update({UP: t[UP].T.copy()}), f"tensor '{UP}': expected shape [37, 24] by config.json, found [24, 37]. Save it untransposed, [out, in]."),
    "matrix in fp32": (as_dtype(UP, np.float32), f"tensor '{UP}': expected dtype bf16, as most matrices are, found fp32."),
    "matrix in int8": (as_dtype(UP, np.int8), f"tensor '{UP}': {PLAIN}, found quantised ones: it is in i8."),
    "vector in fp64": (as_dtype(A_LOG, np.float64), f"tensor '{A_LOG}': expected dtype bf16 or fp32, found fp64."),
    "vector in fp16": (as_dtype(A_LOG, np.float16), f"tensor '{A_LOG}': expected dtype bf16 or fp32, found fp16."),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), TENSOR_FAULTS.values(), ids=TENSOR_FAULTS)
def test_faulty_tensors_are_named(folder: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    resave(folder, FIRST, change)
    with pytest.raises(InputError) as caught:
        Checkpoint.open(folder)
    assert str(caught.value).startswith(f"{folder}, tensor")
    assert message in str(caught.value)
    assert caught.value.todo


def test_a_checkpoint_of_integers(folder: Path) -> None:
    for shard in (FIRST, SECOND):
        resave(folder, shard, lambda tensors: tensors.update({n: t.astype(np.int8) for n, t in tensors.items()}))
    with pytest.raises(InputError, match="found quantised ones: it is in i8"):
        Checkpoint.open(folder)


def test_conv_and_vectors_may_be_fp32(folder: Path) -> None:
    for name in (A_LOG, "backbone.layers.0.mixer.conv1d.weight", "backbone.layers.0.norm.weight"):
        resave(folder, FIRST, as_dtype(name, np.float32))
    assert Checkpoint.open(folder).read(A_LOG).dtype == np.float32


def test_tensors_that_may_be_ignored(folder: Path) -> None:
    resave(folder, FIRST, lambda t: t.update({"mtp.a": np.zeros(1), "mtp.b": np.zeros(1), "router": np.zeros(1)}))
    with pytest.raises(InputError, match="found unknown router"):
        Checkpoint.open(folder, ignore_tensors=["mtp.*"])
    checkpoint = Checkpoint.open(folder, ignore_tensors=["mtp.*", "rout?r", "nothing*"])
    assert "mtp.a" not in checkpoint.tensors
    assert checkpoint.warnings == ("--ignore-tensors nothing*: matches no tensor that is not part of the model",)


def test_a_glob_does_not_excuse_a_needed_tensor(folder: Path) -> None:
    assert UP in Checkpoint.open(folder, ignore_tensors=["*"]).tensors
    resave(folder, FIRST, lambda tensors: tensors.pop(UP))
    with pytest.raises(InputError, match="found missing"):
        Checkpoint.open(folder, ignore_tensors=["*"])


def weight_map(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_bytes())
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))

    return damage


def without_weights(folder: Path) -> None:
    for name in (INDEX, FIRST, SECOND):
        (folder / name).unlink()


def truncate(folder: Path) -> None:
    with (folder / SECOND).open("r+b") as file:
        file.truncate((folder / SECOND).stat().st_size - 1)


FILE_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: expected a JSON file, found no such file."),
    "no weights": (without_weights, "expected model.safetensors or model.safetensors.index.json, found neither."),
    "weights of another kind": (
        lambda f: (without_weights(f), (f / "pytorch_model.bin").write_text("x")),
        "found neither, but pytorch_model.bin. Save the checkpoint as safetensors",
    ),
    "both": (lambda f: shutil.copy(f / FIRST, f / "model.safetensors"), f"found both, and the index names {FIRST}, {SECOND} alone. Remove the one that does not belong to this checkpoint."),
    "shard missing": (lambda f: (f / SECOND).unlink(), f"expected the shard {SECOND}, found no such file. Download the checkpoint again: it is not complete."),
    "shard truncated": (truncate, "tensor 'lm_head.weight': expected data up to byte"),
    "index above": (weight_map(lambda m: m.update({UP: "../" + FIRST})), f"'{UP}': expected the name of a file in the same folder, found the text '../{FIRST}'."),
    "index absolute": (weight_map(lambda m: m.update({UP: "/etc/passwd"})), "expected the name of a file in the same folder, found the text '/etc/passwd'."),
    "index backslash": (weight_map(lambda m: m.update({UP: "..\\" + FIRST})), "expected a plain file name, without / \\ : <"),
    "index dots": (weight_map(lambda m: m.update({UP: ".."})), "expected the name of a file in the same folder, found the text '..'."),
    "index number": (weight_map(lambda m: m.update({UP: 3})), "expected the name of a shard, found 3."),
    "index empty": (weight_map(lambda m: m.clear()), "weight_map: expected an object of tensor to shard, found an object."),
    "index lists too much": (weight_map(lambda m: m.update(ghost=FIRST)), f"expected every tensor of the index in the shard it names, found not there: ghost ({FIRST})."),
    "index lists too little": (weight_map(lambda m: m.pop(UP)), f"expected every tensor of the shards in the index, once, found besides: {UP} ({FIRST})."),
    "index points elsewhere": (weight_map(lambda m: m.update({UP: SECOND})), f"found not there: {UP} ({SECOND})."),
    "tensor in two shards": (
        lambda f: resave(f, SECOND, lambda t: t.update({UP: safetensors.numpy.load_file(f / FIRST)[UP]})),
        f"found besides: {UP} ({FIRST}).",
    ),
    "shard is a folder": (lambda f: ((f / SECOND).unlink(), (f / SECOND).mkdir()), f"expected the shard {SECOND}, found no such file."),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), FILE_FAULTS.values(), ids=FILE_FAULTS)
def test_faulty_files_are_named(folder: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(folder)
    with pytest.raises(InputError) as caught:
        Checkpoint.open(folder)
    assert str(caught.value).startswith(str(folder))
    assert message in str(caught.value)
    assert caught.value.todo


def test_config_against_tensors(folder: Path, edit: Callable[..., None]) -> None:
    for changes, message in (
        ({"hidden_size": 25}, f"tensor '{EMBEDDINGS}': expected shape [61, 25] by config.json, found [61, 24] (and "),
        ({"hybrid_override_pattern": "M-*M-M--"}, "found missing backbone.layers.7.mixer.up_proj.weight, "),
        (
            {"hybrid_override_pattern": "M-*M-M--"},
            "Correct the layer pattern in config.json: layer 7 has the tensors of an attention layer.",
        ),
        (
            {"hybrid_override_pattern": "M-*M-M-", "num_hidden_layers": 7},
            "found unknown backbone.layers.7.",
        ),
        ({"n_groups": 3}, "tensor 'backbone.layers.0.mixer.in_proj.weight': expected shape [180, 24] by config.json"),
    ):
        saved = (folder / "config.json").read_bytes()
        edit(folder / "config.json", **changes)
        with pytest.raises(InputError) as caught:
            Checkpoint.open(folder)
        assert message in str(caught.value)
        (folder / "config.json").write_bytes(saved)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name, found in (("none", "no such folder"), ("file", "a file")):
        with pytest.raises(
            InputError, match=f"expected a checkpoint folder, found {found}. Name the folder of config.json"
        ):
            Checkpoint.open(tmp_path / name)
