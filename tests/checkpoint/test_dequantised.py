"""Checkpoints with quantised matrices: what they are worth, what is said, and what is refused by name."""

# ruff: noqa: E501  # a row of a table of messages is read in one line

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.checkpoint.tensors import QuantisedTensor
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import slice_array, tensor_runs
from elastic_export.verify.second_reading import read_again
from elastic_runtime.errors import InputError, InternalError
from quantised_checkpoint import (
    Kind,
    Written,
    weight_only_4b,
    write_quantised,
)
from small_checkpoint import PARENT

#: Of all kinds of layers, columns in whole blocks of 16 everywhere, rows in none; see PATTERN_4B for the layers' places.
ARCH = replace(PARENT, hidden_size=32, ffn_sizes=(48,) * 3, mamba_head_dim=16, attention_heads=4, attention_head_dim=8)
BUDGET = Budget("cut", 16, (32, 48, 16), (4,) * 3, 16, 4, (3,))
WEIGHTS = random_weights(ARCH, np.random.default_rng(11))

IN, UP = "backbone.layers.0.mixer.in_proj", "backbone.layers.1.mixer.up_proj"


def everything(kind: str) -> Kind:
    return lambda module: kind


def mixed(module: str) -> str | None:
    return {"in_proj": "NVFP4", "up_proj": "FP8", "down_proj": "NVFP4", "embeddings": "NVFP4", "lm_head": "FP8"}.get(
        module.rsplit(".", 1)[-1]
    )


KINDS: dict[str, Kind] = {"FP8": everything("FP8"), "NVFP4": everything("NVFP4"), "mixed": mixed}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("described", [("file",), ("config",), ("file", "config")])
@pytest.mark.parametrize("prefix", ["backbone", "model"])
def test_matrices_are_worth_what_the_format_says(
    tmp_path: Path, kind: Kind, described: tuple[str, ...], prefix: str
) -> None:
    written = write_quantised(
        tmp_path / "ck", ARCH, WEIGHTS, kind, [BUDGET], described=described, prefix=prefix, cache_scales=True
    )
    checkpoint = Checkpoint.open(written.folder)
    assert (checkpoint.dtype, checkpoint.prefix, checkpoint.architecture) == ("bf16", prefix, ARCH)
    stored = {name for name, tensor in checkpoint.tensors.items() if isinstance(tensor, QuantisedTensor)}
    assert {name.removesuffix(".weight") for name in stored} == set(written.kinds)
    assert dict(checkpoint.formats) == {
        k: list(written.kinds.values()).count(k) for k in ("FP8", "NVFP4") if k in written.kinds.values()
    }
    runs = tensor_runs(ARCH, BUDGET, prefix)
    for name, worth in written.worth.items():
        tensor = checkpoint.tensors[name]
        assert (tensor.shape, tensor.dtype) == (worth.shape, "bf16")
        for found in (checkpoint.read(name), read_again(checkpoint, name)):
            assert found.dtype == (np.float32 if name in stored else checkpoint.read(name).dtype)
            np.testing.assert_array_equal(found.astype(np.float32), worth)
        some = np.array([len(worth) - 1, 0])
        np.testing.assert_array_equal(checkpoint.read(name, some).astype(np.float32), worth[some])
        np.testing.assert_array_equal(checkpoint.read(name, slice(1, 3)).astype(np.float32), worth[1:3])
        np.testing.assert_array_equal(read_again(checkpoint, name, some).astype(np.float32), worth[some])
        if name in runs:
            kept = checkpoint.cut(name, runs[name])
            np.testing.assert_array_equal(kept.astype(np.float32), slice_array(worth, runs[name]))
        checkpoint.release(name)


def test_rows_are_dequantised_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elastic_export.checkpoint.reader._AT_ONCE", 100)  # three rows, one row
    monkeypatch.setattr("elastic_export.verify.second_reading._AT_ONCE", 100)
    written = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, mixed, [BUDGET])
    checkpoint = Checkpoint.open(written.folder)
    for name, runs in tensor_runs(ARCH, BUDGET).items():
        for found in (checkpoint.read(name), read_again(checkpoint, name)):
            np.testing.assert_array_equal(found.astype(np.float32), written.worth[name])
        kept = checkpoint.cut(name, runs)
        np.testing.assert_array_equal(kept.astype(np.float32), slice_array(written.worth[name], runs))


def test_scales_of_activations_and_caches_are_told_and_not_read(tmp_path: Path) -> None:
    written = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, mixed, cache_scales=True, weight_only=weight_only_4b)
    nowhere = {"lm_head.input_scale", "backbone.embeddings.input_scale"}
    assert not nowhere & set(load_file(written.folder / "model-00001-of-00002.safetensors"))
    checkpoint = Checkpoint.open(written.folder, require_budgets=False)
    assert checkpoint.warnings == (
        f"{written.folder}: 4 matrices in FP8 and 7 matrices in NVFP4 are read by dequantising",
        f"{written.folder}: 13 scales of activations and caches (backbone.layers.0.mixer.in_proj.input_scale, …) are not used: engines keep both in the export's precision",
    )  # fmt: skip


def test_caches_announced_without_scales_are_no_fault(tmp_path: Path) -> None:
    written = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, mixed)
    said = json.loads((written.folder / "hf_quant_config.json").read_text())
    assert said["quantization"]["kv_cache_quant_algo"] == "FP8"
    assert Checkpoint.open(written.folder, require_budgets=False).formats == {"FP8": 4, "NVFP4": 7}


def test_scales_of_a_cache_beside_whole_weights(tmp_path: Path) -> None:
    """An export that quantised the cache alone: `quant_algo` is null."""
    written = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, lambda module: None, cache_scales=True)
    checkpoint = Checkpoint.open(written.folder, require_budgets=False)
    assert checkpoint.formats == {}
    [warning] = checkpoint.warnings
    assert "4 scales of activations and caches" in warning


def test_scales_of_a_cache_that_no_layer_has_are_unknown(tmp_path: Path) -> None:
    folder = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, mixed, shards=1).folder
    resave(folder, lambda tensors: tensors.update({"backbone.layers.0.mixer.k_proj.k_scale": torch.tensor(1.0)}))
    with pytest.raises(InputError, match=r"found unknown backbone\.layers\.0\.mixer\.k_proj\.k_scale"):
        Checkpoint.open(folder, require_budgets=False)


def test_all_matrices_quantised_leave_the_dtype_to_the_config(tmp_path: Path) -> None:
    written = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, everything("FP8"))
    config = json.loads((written.folder / "config.json").read_text())
    for said, dtype in (("float16", "fp16"), ("bfloat16", "bf16"), ("auto", "bf16")):
        (written.folder / "config.json").write_text(json.dumps(config | {"torch_dtype": said}))
        if dtype == "bf16":
            assert Checkpoint.open(written.folder, require_budgets=False).dtype == dtype
        else:  # its vectors are in BF16
            with pytest.raises(InputError, match="expected dtype fp16"):
                Checkpoint.open(written.folder, require_budgets=False)


def test_a_slice_through_a_block_is_a_fault_of_ours(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(write_quantised(tmp_path / "ck", ARCH, WEIGHTS, mixed).folder, require_budgets=False)
    for columns in (((0, 8),), ((8, 16),)):
        with pytest.raises(InternalError, match="columns in whole blocks of 16"):
            checkpoint.cut(f"{IN}.weight", (((0, 4),), columns))


# ----------------------------------------------------------------------------------------------------- contradictions


def describe(folder: Path, **changes: Any) -> None:
    path = folder / "hf_quant_config.json"
    document = json.loads(path.read_text())
    document["quantization"].update(changes)
    path.write_text(json.dumps(document))


def warnings_of(folder: Path) -> str:
    return "\n".join(Checkpoint.open(folder, require_budgets=False).warnings)


def test_tensors_win_over_a_list_that_says_otherwise(tmp_path: Path) -> None:
    folder = write_quantised(
        tmp_path / "ck", ARCH, WEIGHTS, lambda m: "FP8" if m == UP else None, described=("file",)
    ).folder
    assert "quantised: read" not in warnings_of(folder)
    describe(folder, exclude_modules=["lm_head", "backbone.layers.1.*", "backbone.layers.*.mixer.?_proj"])
    found = warnings_of(folder)
    assert f"hf_quant_config.json does not count {UP} as quantised: read as they are stored" in found
    assert f"counts {IN}, backbone.layers.0.mixer.out_proj, " in found
    assert "embeddings" not in found, "which are no linear layer: FP8 does not announce them"
    assert "lm_head" not in found, "which is excluded"
    describe(folder, quantized_layers={IN: {"quant_algo": "FP8"}})
    found = warnings_of(folder)
    assert f"does not count {UP} as quantised" in found
    assert f"counts {IN} as quantised: read as they are stored, whole" in found
    describe(folder, quantized_layers={UP.replace("backbone.", "model."): {"quant_algo": "FP8"}})
    assert "quantised: read" not in warnings_of(folder), "the module by the prefix of another save"


def test_nothing_announced_and_nothing_quantised_is_a_plain_checkpoint(tmp_path: Path) -> None:
    """Selectors that match no module of the model leave such ones."""
    folder = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, lambda module: None).folder
    assert warnings_of(folder) == ""


@pytest.mark.parametrize("described", ["file", "config"])
def test_announced_and_not_there(tmp_path: Path, described: str) -> None:
    folder = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, lambda module: None, described=(described,)).folder
    if described == "file":
        describe(folder, quant_algo="NVFP4")
    else:
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"]["quant_algo"] = "NVFP4"
        (folder / "config.json").write_text(json.dumps(config))
    where = "hf_quant_config.json" if described == "file" else "config.json, quantization_config"
    with pytest.raises(InputError, match=rf"{where}: expected quantised weights, found NVFP4 announced, and every"):
        Checkpoint.open(folder, require_budgets=False)


def test_quantised_and_not_announced(tmp_path: Path) -> None:
    folder = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, mixed, described=()).folder
    with pytest.raises(InputError) as caught:
        Checkpoint.open(folder, require_budgets=False)
    assert str(caught.value) == (
        f"{folder}, tensor 'backbone.embeddings.weight': expected hf_quant_config.json, or quantization_config in "
        "config.json, beside quantised weights, found neither, and it is in NVFP4. Download hf_quant_config.json too: "
        "without it nobody can tell what else was done to the weights."
    )


FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "AWQ of ModelOpt": ({"quant_algo": "W4A16_AWQ"}, r"quant_algo: expected one of FP8, .*found 'W4A16_AWQ'\. Export the checkpoint that it"),
    "AWQ in NVFP4": ({"quant_algo": "NVFP4_AWQ"}, "found 'NVFP4_AWQ'"),
    "MXFP8": ({"quant_algo": "MXFP8"}, "found 'MXFP8'"),
    "per channel": ({"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}, "found 'FP8_PER_CHANNEL_PER_TOKEN'"),
    "no text": ({"quant_algo": 8}, "quant_algo: expected one of .* found 8"),
    "another block": ({"group_size": 32}, r"group_size: expected 16, the block of NVFP4 \(others are not read\), found"),
    "in one layer": ({"quantized_layers": {IN: {"quant_algo": "W4A8_AWQ"}}}, rf"quantized_layers, {IN}, quant_algo: .* found 'W4A8_AWQ'"),
    "another block in one layer": ({"quantized_layers": {IN: {"quant_algo": "NVFP4", "group_size": 128}}}, "group_size: expected 16"),
    "layers as a list": ({"quantized_layers": [IN]}, "quantized_layers: expected an object of module to object"),
    "layers as texts": ({"quantized_layers": {IN: "FP8"}}, "quantized_layers: expected an object of module to object"),
    "names as a text": ({"exclude_modules": "lm_head"}, "exclude_modules: expected a list of names"),
    "names as numbers": ({"exclude_modules": [1]}, "exclude_modules: expected a list of names"),
}  # fmt: skip


@pytest.mark.parametrize(("said", "message"), FOREIGN.values(), ids=FOREIGN)
def test_descriptions_of_what_is_not_read(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    folder = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, mixed).folder
    describe(folder, **said)
    with pytest.raises(InputError, match=message):
        Checkpoint.open(folder, require_budgets=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no JSON", "hf_quant_config.json"),
        ('{"quantization": []}', "quantization: expected an object"),
        ("[]", "object"),
    ],
)
def test_a_description_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    folder = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, mixed).folder
    (folder / "hf_quant_config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Checkpoint.open(folder, require_budgets=False)


@pytest.mark.parametrize(
    ("said", "called"),
    [
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors, pack-quantized"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq"}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "mxfp8"}, "mxfp8"),
        ("FP8", "it does not say how"),
    ],
)
def test_methods_of_others_are_refused_by_their_name(tmp_path: Path, said: object, called: str) -> None:
    folder = write_quantised(tmp_path / "ck", ARCH, WEIGHTS, mixed).folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    with pytest.raises(InputError, match=rf"quantization_config: .*its weights are quantised \({called}\)"):
        Checkpoint.open(folder, require_budgets=False)


# ------------------------------------------------------------------------------------------------------- bad tensors

Change = Callable[[dict[str, torch.Tensor]], object]


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


def resave(folder: Path, change: Change) -> None:
    path = folder / "model-00001-of-00001.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)


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
