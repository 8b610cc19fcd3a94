"""Checkpoints with quantised matrices: what they are worth, what is said, and which descriptions are refused by name."""

# ruff: noqa: E501  # a row of a table of messages is read in one line

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.tensors import QuantisedTensor
from elastic_export.layers.kept import slice_array, tensor_runs
from elastic_export.verify.second_reading import read_again
from elastic_runtime.errors import InputError, InternalError
from quantised_checkpoint import (
    Kind,
    weight_only_4b,
    write_quantised,
)
from small_quantised import ARCH, BUDGET, IN, UP, WEIGHTS, everything, mixed, resave

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
