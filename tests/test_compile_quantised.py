"""Exports of quantised parents in the published layouts: BF16 comes out, verified, and nothing of the formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.dtypes import DTYPES
from elastic_export.evaluate.counterpart import counterparts
from elastic_export.evaluate.from_bundle import bundle_models
from elastic_export.evaluate.lost_rows import weight_loss
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import slice_array, tensor_runs
from elastic_export.verify.tolerance import TOLERANCES
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from quantised_checkpoint import (
    PATTERN_4B,
    PATTERN_9B,
    Kind,
    Written,
    nano_4b_fp8,
    nano_4b_mixed,
    nano_9b_v2_nvfp4,
    weight_only_4b,
    write_quantised,
)
from small_export import ARCH as SMALL_ARCH
from small_export import run

# One worker: its exports share traces, those of fifty layers take seconds.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile_quantised")]


def narrow(pattern: str) -> Architecture:
    """The published layers, a fiftieth as wide; every width a multiple of 16 as theirs are."""
    return replace(
        SMALL_ARCH,
        pattern=pattern,
        hidden_size=64,
        ffn_sizes=(96,) * pattern.count("-"),
        mamba_heads=(4,) * pattern.count("M"),
        mamba_head_dim=16,
        attention_heads=4,
        kv_heads=2,
    )


LAYOUTS: dict[str, tuple[str, Kind, dict[str, int], tuple[str, ...]]] = {
    "9B-v2-NVFP4": (PATTERN_9B, nano_9b_v2_nvfp4, {"NVFP4": 96}, ("file",)),
    "4B-FP8": (PATTERN_4B, nano_4b_fp8, {"FP8": 68}, ("file", "config")),
    "4B mixed": (PATTERN_4B, nano_4b_mixed, {"FP8": 10, "NVFP4": 84}, ("config",)),
}


def write(folder: Path, layout: str, layers: int | None = None) -> tuple[Written, Architecture]:
    """Its parent, or the first layers of it."""
    pattern, kind, _, described = LAYOUTS[layout]
    arch = narrow(pattern[:layers])
    cut = replace(Budget.full(arch, "cut"), hidden_size=48, ffn_sizes=(64,) * len(arch.ffn_sizes), skip_layers=(2, 3))
    weights = random_weights(arch, np.random.default_rng(3))
    written = write_quantised(
        folder, arch, weights, kind, [Budget.full(arch, "full"), cut],
        described=described, cache_scales=layout == "4B-FP8", weight_only=weight_only_4b,
    )  # fmt: skip
    return written, arch


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout_ships_in_bfloat16(tmp_path: Path, layout: str) -> None:
    written, arch = write(tmp_path / "ck", layout)
    assert Checkpoint.open(written.folder).formats == LAYOUTS[layout][2]

    result = run(written.folder, tmp_path / "out", "cut", weights="sliced")

    assert any("read by dequantising" in note for note in result.notes)
    report = json.loads((tmp_path / "out/cut/report.json").read_text())
    assert report["passed"]
    assert max(t["error"] for t in report["checks"][0]["tensors"].values()) <= TOLERANCES["float32"]["bf16"].error
    taken = report["conversion"]
    assert (taken["from"], taken["to"]) == (" and ".join([*LAYOUTS[layout][2], "bf16"]), "bf16")
    assert 0.0005 < taken["relative_error"] < 0.004, "one rounding to 8 bits"
    assert taken["values"] > 10_000

    shipped = Checkpoint.open(tmp_path / "out/cut", require_budgets=False)
    assert (shipped.formats, shipped.warnings[1:]) == ({}, ())
    assert "quantization_config" not in shipped.config
    assert not (tmp_path / "out/cut/hf_quant_config.json").exists()
    budget = Checkpoint.open(written.folder).budgets["cut"]
    names = list(shipped.tensors)
    for name, (parent, runs) in zip(names, tensor_runs(arch, budget).items(), strict=True):
        expected = slice_array(written.worth[parent], runs).astype(DTYPES["bf16"].numpy)
        np.testing.assert_array_equal(np.asarray(shipped.read(name)), expected)


#: Each format by itself; both in one parent, in every run, as BF16.
EIGHT_BITS = [pytest.param(name, marks=[pytest.mark.slow] if name == "4B mixed" else []) for name in LAYOUTS]


@pytest.mark.parametrize("layout", EIGHT_BITS)
def test_a_published_layout_ships_in_eight_bits(tmp_path: Path, layout: str) -> None:
    """One file for all budgets; the numbers of the format are rounded to eight bits, not their BF16."""
    written, _ = write(tmp_path / "ck", layout, layers=18)  # of each kind some
    run(written.folder, tmp_path / "out", "cut", weights="shared", quantise="int8")
    report = json.loads((tmp_path / "out/cut.int8/report.json").read_text())
    assert report["passed"]
    assert max(t["error"] for t in report["checks"][0]["tensors"].values()) <= TOLERANCES["float32"]["bf16"].error
    taken, parent = report["rounding"], Checkpoint.open(written.folder)
    pairs, _ = counterparts(bundle_models(Bundle.open(tmp_path / "out"), "all")[0], parent)
    [expected] = [weight_loss(pair) for pair in pairs]  # of what the parent's matrices dequantise to
    assert taken["dequantised"] == list(parent.formats)
    assert taken["error"] == pytest.approx(expected.error, rel=1e-3)
    assert [(row["tensor"], row["row"]) for row in taken["rows"]] == [(row.tensor, row.row) for row in expected.rows]
    [stored] = [load_file(path) for path in (tmp_path / "out/weights").glob("q8-*")]
    matrix = "backbone.layers.5.mixer.down_proj"
    values, scales = (stored[name] for name in sorted(name for name in stored if name.startswith(matrix)))
    worth, units = written.worth[f"{matrix}.weight"], scales / 128
    np.testing.assert_array_equal(units, np.abs(worth).max(axis=1) / np.float32(127))
    np.testing.assert_array_equal(values.T, np.round(worth / units[:, None]))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both formats, and budgets."""
    arch = replace(SMALL_ARCH, mamba_head_dim=16)
    budgets = [Budget.full(arch, "full"), replace(Budget.full(arch, "small"), hidden_size=32, mamba_heads=(4, 4))]
    names = {"in_proj": "NVFP4", "up_proj": "FP8", "lm_head": "FP8", "o_proj": "NVFP4"}
    weights = random_weights(arch, np.random.default_rng(9))
    folder = tmp_path_factory.mktemp("small") / "ck"
    write_quantised(folder, arch, weights, lambda module: names.get(module.rsplit(".", 1)[-1]), budgets)
    return folder


@pytest.mark.parametrize(("precision", "error"), [("fp32", 0.0), ("fp16", 0.001)])
def test_other_precisions_take_the_numbers_and_not_their_bfloat16(
    small: Path, tmp_path: Path, precision: Any, error: float
) -> None:
    run(small, tmp_path / "out", weights="sliced", precision=precision)
    taken = json.loads((tmp_path / "out/small/report.json").read_text())["conversion"]
    assert taken["relative_error"] <= error
    parent, shipped = Checkpoint.open(small), Checkpoint.open(tmp_path / "out/small", require_budgets=False)
    runs = tensor_runs(parent.architecture, parent.budgets["small"])["lm_head.weight"]
    exact = parent.cut("lm_head.weight", runs)
    np.testing.assert_array_equal(shipped.read("lm_head.weight"), exact.astype(DTYPES[precision].numpy))


def test_embedded_weights_are_dequantised_too(small: Path, tmp_path: Path) -> None:
    run(small, tmp_path / "out", weights="embedded")
    report = json.loads((tmp_path / "out/small/report.json").read_text())
    assert report["passed"]
    assert report["conversion"]["from"] == "FP8 and NVFP4 and bf16"


def test_shards_that_no_engine_takes_are_not_shared(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run(small, tmp_path / "out")
    assert str(caught.value) == (
        "--weights shared: expected a checkpoint whose matrices are all in bf16, in which engines take them, found "
        "2 in FP8, 3 in NVFP4. Use --weights sliced, which dequantises them for each budget, "
        "or --quantize int8."
    )
    assert not (tmp_path / "out").exists()


def test_a_scale_that_is_none_leaves_no_bundle(
    small: Path, tmp_path: Path, spoil: Callable[[Path, str, int, int], None]
) -> None:
    written = tmp_path / "ck"
    written.symlink_to(small)
    spoil(small, "backbone.layers.0.mixer.in_proj.weight_scale", 3, 0)
    with pytest.raises(
        InputError, match=r"in_proj\.weight_scale', row 1: expected positive scales of its blocks, found"
    ):
        run(written, tmp_path / "out", weights="sliced")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def spoil() -> Callable[[Path, str, int, int], None]:
    """`spoil(folder, tensor, element, value)`: one byte of a tensor of bytes."""

    def write_byte(folder: Path, name: str, element: int, value: int) -> None:
        file = folder / json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][name]
        data = bytearray(file.read_bytes())
        length = int.from_bytes(data[:8], "little")
        begin = json.loads(data[8 : 8 + length])[name]["data_offsets"][0]
        data[8 + length + begin + element] = value
        file.write_bytes(data)

    return write_byte
