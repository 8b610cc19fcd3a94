"""Tensors of a quantised checkpoint that are not what the format says: refused by name, when opened or when read."""

# ruff: noqa: E501  # a row of a table of messages is read in one line

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_runtime.errors import InputError
from quantised_checkpoint import (
    Written,
    write_quantised,
)
from small_quantised import ARCH, IN, UP, WEIGHTS, Change, mixed, resave


def number(name: str, value: float) -> Change:
    return lambda tensors: tensors.update({name: torch.tensor(value)})


def drop(name: str) -> Change:
    return lambda tensors: tensors.pop(name)


def put(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Change:
    return lambda tensors: tensors.update({name: torch.ones(shape, dtype=dtype)})


def code(name: str, row: int, value: int) -> Change:
    """One byte of a tensor of bytes."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(torch.uint8)[row, 1] = value

    return change


AGAIN = "Download the checkpoint again, or quantise it again"
HEADER_FAULTS: dict[str, tuple[Change, str]] = {
    "a scale of zero": (number(f"{UP}.weight_scale", 0.0), f"tensor '{UP}.weight_scale': expected a positive number, found 0. {AGAIN}."),
    "a negative scale": (number(f"{UP}.weight_scale", -0.5), f"tensor '{UP}.weight_scale': expected a positive number, found -0.5"),
    "a scale that is NaN": (number(f"{UP}.weight_scale", float("nan")), "expected a positive number, found nan"),
    "an infinite scale": (number(f"{UP}.weight_scale", float("inf")), "expected a positive number, found inf"),
    "a scale too large": (number(f"{UP}.weight_scale", 1e36), f"tensor '{UP}.weight_scale': expected at most 7.6e+35, or its products overflow float32, found 1"),
    "a global scale of zero": (number(f"{IN}.weight_scale_2", 0.0), f"tensor '{IN}.weight_scale_2': expected a positive number, found 0"),
    "a global scale too large": (number(f"{IN}.weight_scale_2", 2e35), f"tensor '{IN}.weight_scale_2': expected at most 1.3e+35"),
    "a scale of two numbers": (put(f"{UP}.weight_scale", 2), f"tensor '{UP}.weight_scale': expected shape [] of FP8 for [48, 32] by config.json, found [2]"),
    "a scale in another dtype": (put(f"{UP}.weight_scale", dtype=torch.bfloat16), f"tensor '{UP}.weight_scale': expected dtype fp32, as FP8 has it, found bf16"),
    "no matrix": (drop(f"{UP}.weight"), f"tensor '{UP}.weight': expected it beside its scales, found no such tensor. {AGAIN}."),
    "no scale": (drop(f"{UP}.weight_scale"), f"tensor '{UP}.weight_scale': expected it beside the FP8 matrix '{UP}.weight', found no such tensor. {AGAIN}."),
    "no block scales": (drop(f"{IN}.weight_scale"), f"tensor '{IN}.weight_scale': expected it beside the NVFP4 matrix '{IN}.weight', found no such tensor"),
    "no global scale": (drop(f"{IN}.weight_scale_2"), f"tensor '{IN}.weight_scale_2': expected it beside the NVFP4 matrix"),
    "a scale of another format too": (put(f"{UP}.weight_scale_2"), f"tensor '{UP}.weight_scale_2': expected weight_scale alone beside FP8, found weight_scale_2 as well"),
    "the matrix of another shape": (put(f"{UP}.weight", 48, 31, dtype=torch.float8_e4m3fn), f"tensor '{UP}.weight': expected shape [48, 32] of FP8 for [48, 32] by config.json, found [48, 31]"),
    "half of the bytes": (put(f"{IN}.weight", 218, 8, dtype=torch.uint8), f"tensor '{IN}.weight': expected shape [218, 16] of NVFP4 for [218, 32] by config.json, found [218, 8]. {AGAIN}."),
    "block scales in another dtype": (put(f"{IN}.weight_scale", 218, 2, dtype=torch.float32), f"tensor '{IN}.weight_scale': expected dtype fp8_e4m3, as NVFP4 has it, found fp32"),
    "block scales transposed": (put(f"{IN}.weight_scale", 2, 218, dtype=torch.float8_e4m3fn), f"tensor '{IN}.weight_scale': expected shape [218, 2] of NVFP4 for [218, 32] by config.json, found [2, 218]"),
    "half of the block scales": (put(f"{IN}.weight_scale", 218, 1, dtype=torch.float8_e4m3fn), f"tensor '{IN}.weight_scale': expected shape [218, 2] of NVFP4 for [218, 32] by config.json, found [218, 1], half of it. Quantise it again: ModelOpt before 0.46 wrote block scales of half the size with mtq.compress or low_memory_mode."),
    "scales without a quantised matrix": (put("backbone.layers.2.mixer.q_proj.weight_scale"), "found unknown backbone.layers.2.mixer.q_proj.weight_scale"),
    "a convolution in FP8": (put("backbone.layers.0.mixer.conv1d.weight", 116, 1, 3, dtype=torch.float8_e4m3fn), "tensor 'backbone.layers.0.mixer.conv1d.weight': expected dtype bf16 or fp32"),
}  # fmt: skip


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write_quantised(tmp_path / "ck", ARCH, WEIGHTS, mixed, shards=1)


@pytest.mark.parametrize(("change", "message"), HEADER_FAULTS.values(), ids=HEADER_FAULTS)
def test_faults_that_opening_finds(written: Written, change: Change, message: str) -> None:
    resave(written.folder, change)
    with pytest.raises(InputError) as caught:
        Checkpoint.open(written.folder, require_budgets=False)
    assert str(caught.value).startswith(str(written.folder))
    assert message in str(caught.value)


def test_a_number_in_a_list_of_one_is_that_number(written: Written) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{UP}.weight_scale"] = tensors[f"{UP}.weight_scale"].reshape(1)

    resave(written.folder, change)
    checkpoint = Checkpoint.open(written.folder, require_budgets=False)
    np.testing.assert_array_equal(checkpoint.read(f"{UP}.weight"), written.worth[f"{UP}.weight"])


def test_a_scale_that_is_there_twice(tmp_path: Path) -> None:
    folder = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, mixed, shards=2).folder
    (folder / "model.safetensors.index.json").unlink()
    first, second = sorted(folder.glob("*.safetensors"))
    both = {**load_file(first), **load_file(second)}
    for path in (first, second):
        save_file(load_file(path) | {f"{UP}.weight_scale": both[f"{UP}.weight_scale"]}, path, {"format": "pt"})
    with pytest.raises(InputError, match=rf"tensor '{UP}.weight_scale': expected it once, found it in "):
        Checkpoint.open(folder, require_budgets=False)


def test_columns_that_are_no_whole_blocks(tmp_path: Path) -> None:
    odd = replace(ARCH, hidden_size=40)
    weights = random_weights(odd, np.random.default_rng(1))
    folder = write_quantised(tmp_path / "ck", odd, weights, lambda m: "FP8" if m == UP else None, shards=1).folder
    assert Checkpoint.open(folder, require_budgets=False).formats == {"FP8": 1}, "FP8 has no blocks"

    def packed(tensors: dict[str, torch.Tensor]) -> None:
        put(f"{UP}.weight", 48, 20, dtype=torch.uint8)(tensors)
        put(f"{UP}.weight_scale", 48, 3, dtype=torch.float8_e4m3fn)(tensors)
        put(f"{UP}.weight_scale_2")(tensors)

    resave(folder, packed)
    message = rf"tensor '{UP}.weight': expected columns in whole blocks of 16, as NVFP4 has them, found 40 columns by"
    with pytest.raises(InputError, match=message):
        Checkpoint.open(folder, require_budgets=False)


CODE_FAULTS: dict[str, tuple[Change, str, str, str]] = {
    "a weight that is NaN": (code(f"{UP}.weight", 7, 0x7F), UP, "weight', row 7: expected numbers, found a NaN (code 0x7f or 0xff)", "weight"),
    "a negative NaN": (code(f"{UP}.weight", 0, 0xFF), UP, "weight', row 0: expected numbers, found a NaN", "weight"),
    "a block scale that is NaN": (code(f"{IN}.weight_scale", 9, 0x7F), IN, "weight_scale', row 9: expected positive scales of its blocks, found a NaN", "weight_scale"),
    "a block scale of zero": (code(f"{IN}.weight_scale", 9, 0), IN, "weight_scale', row 9: expected positive scales of its blocks, found zero", "weight_scale"),
    "a negative block scale": (code(f"{IN}.weight_scale", 9, 0x88), IN, "weight_scale', row 9: expected positive scales of its blocks, found a negative one", "weight_scale"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "module", "message", "piece"), CODE_FAULTS.values(), ids=CODE_FAULTS)
def test_faults_that_reading_finds(
    written: Written, change: Change, module: str, message: str, piece: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elastic_export.checkpoint.reader._AT_ONCE", 100)  # so that rows are counted over several bands
    resave(written.folder, change)
    checkpoint = Checkpoint.open(written.folder, require_budgets=False)
    name = f"{module}.weight"
    every = tuple(((0, size),) for size in checkpoint.tensors[name].shape)
    for read in (lambda: checkpoint.read(name), lambda: checkpoint.cut(name, every)):
        with pytest.raises(InputError) as caught:
            read()
        assert f"tensor '{module}.{piece}" in str(caught.value)
        assert message in str(caught.value)
    rows = np.array([3, 9, 7, 0])
    with pytest.raises(InputError, match=r"row [790]:"):
        checkpoint.read(name, rows)
