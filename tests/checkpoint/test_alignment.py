"""Budgets that cut through a block of columns are refused when they are read, and no others."""

# ruff: noqa: E501  # a row of a table of messages is read in one line

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elastic_export.checkpoint.alignment import check_alignment, check_any_column
from elastic_export.checkpoint.budgets import FILE_NAME, FORMAT, parse_budgets
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.kept import tensor_runs
from elastic_export.runs import positions
from elastic_runtime.errors import InputError
from quantised_checkpoint import Kind, write_quantised
from small_checkpoint import PARENT

#: 6 heads of 16 in 2 groups: 48 channels a group. 4 query heads of 8 of 2 KV heads.
ARCH = replace(PARENT, hidden_size=64, ffn_sizes=(48,) * 3, mamba_head_dim=16, attention_heads=4, attention_head_dim=8)
WEIGHTS = random_weights(ARCH, np.random.default_rng(4))
IN = "backbone.layers.0.mixer.in_proj"


def only(*names: str) -> Kind:
    return lambda module: "NVFP4" if module.rsplit(".", 1)[-1] in names else None


def opened(folder: Path, kind: Kind, budget: dict[str, Any], **options: Any) -> Checkpoint:
    if not folder.exists():
        write_quantised(folder, ARCH, WEIGHTS, kind)
    (folder / FILE_NAME).write_text(json.dumps({"format": FORMAT, "budgets": {"b": budget}}))
    return Checkpoint.open(folder, **options)


CUTS: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "hidden": (("in_proj",), {"hidden_size": 40}, "hidden_size 40: expected columns of backbone.layers.0.mixer.in_proj.weight kept in whole blocks of 16, as NVFP4 stores them, found a cut at column 40, inside the block 32 to 47."),
    "hidden of the embedding": (("embeddings",), {"hidden_size": 63}, "hidden_size 63: expected columns of backbone.embeddings.weight"),
    "hidden of the head": (("lm_head",), {"hidden_size": 8}, "hidden_size 8: expected columns of lm_head.weight kept in whole blocks of 16, as NVFP4 stores them, found a cut at column 8, inside the block 0 to 15."),
    "ffn of one layer": (("down_proj",), {"intermediate_size": [32, 47, 16]}, "intermediate_size 47: expected columns of backbone.layers.4.mixer.down_proj.weight"),
    "channels inside heads": (("out_proj",), {"mamba_head_dim": 8}, "mamba_num_heads 6 x mamba_head_dim 8: expected columns of backbone.layers.0.mixer.out_proj.weight kept in whole blocks of 16, as NVFP4 stores them, found a cut at column 8, inside the block 0 to 15."),
    "query heads": (("o_proj",), {"num_attention_heads": 2}, "num_attention_heads 2: expected columns of backbone.layers.2.mixer.o_proj.weight kept in whole blocks of 16, as NVFP4 stores them, found a cut at column 8, inside the block 0 to 15."),
}  # fmt: skip


@pytest.mark.parametrize(("names", "budget", "message"), CUTS.values(), ids=CUTS)
def test_a_cut_through_a_block_is_named(
    tmp_path: Path, names: tuple[str, ...], budget: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "ck"
    with pytest.raises(InputError) as caught:
        opened(folder, only(*names), budget)
    assert str(caught.value).startswith(f"{folder / FILE_NAME}, budget 'b', {message}")
    assert str(caught.value).endswith("or export the checkpoint that it was quantised from.")
    Checkpoint.open(folder, require_budgets=False)


@pytest.mark.parametrize(
    ("names", "budget"),
    [
        (("in_proj", "up_proj", "q_proj"), {"hidden_size": 48, "intermediate_size": 47, "num_attention_heads": 2}),
        (("down_proj",), {"hidden_size": 40, "intermediate_size": [16, 32, 48]}),
        (("down_proj",), {"intermediate_size": [47, 32, 32], "skip_layers": [1]}),
        (("out_proj",), {"hidden_size": 31, "mamba_num_heads": [2, 4, 6]}),
        (("o_proj",), {"hidden_size": 31}),
    ],
    ids=["rows are free", "ffn in blocks", "of a skipped layer", "whole heads", "whole heads of attention"],
)
def test_cuts_between_blocks_are_none(tmp_path: Path, names: tuple[str, ...], budget: dict[str, Any]) -> None:
    assert list(opened(tmp_path / "ck", only(*names), budget).budgets) == ["b"]


def test_fp8_has_no_blocks(tmp_path: Path) -> None:
    budget = {"hidden_size": 13, "intermediate_size": 7, "mamba_head_dim": 3, "num_attention_heads": 2}
    checkpoint = opened(tmp_path / "ck", lambda module: "FP8", budget)
    assert checkpoint.formats == {"FP8": 22}
    check_any_column("ck", checkpoint.tensors)  # and budgets may be proposed


def test_the_file_that_was_named_is_the_one_at_fault(tmp_path: Path) -> None:
    other = tmp_path / "mine.json"
    other.write_text(json.dumps({"format": FORMAT, "budgets": {"mine": {"hidden_size": 24}}}))
    with pytest.raises(InputError, match=r"mine\.json, budget 'mine', hidden_size 24: expected columns of "):
        opened(tmp_path / "ck", only("in_proj"), {}, budgets_file=other)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = write_quantised(tmp_path_factory.mktemp("all") / "ck", ARCH, WEIGHTS, lambda module: "NVFP4").folder
    return Checkpoint.open(folder, require_budgets=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_passes_is_what_keeps_whole_blocks(everything: Checkpoint, data: st.DataObject) -> None:
    """Counted block by block: a block is kept whole or not at all."""
    document = {
        "hidden_size": data.draw(st.sampled_from([16, 24, 32, 48, 64])),
        "intermediate_size": data.draw(st.lists(st.sampled_from([8, 16, 32, 48]), min_size=3, max_size=3)),
        "mamba_num_heads": data.draw(st.lists(st.sampled_from([2, 4, 6]), min_size=3, max_size=3)),
        "mamba_head_dim": data.draw(st.sampled_from([8, 16])),
        "num_attention_heads": data.draw(st.sampled_from([2, 4])),
        "skip_layers": data.draw(st.lists(st.integers(0, 7), max_size=4, unique=True)),
    }
    arch: Architecture = everything.architecture
    budgets, _ = parse_budgets({"format": FORMAT, "budgets": {"b": document}}, arch, "file")
    whole = True
    for name, runs in tensor_runs(arch, budgets["b"]).items():
        if len(everything.tensors[name].shape) == 2:
            kept = np.zeros(everything.tensors[name].shape[1], bool)
            kept[positions(runs[1])] = True
            whole &= set(kept.reshape(-1, 16).sum(axis=1)) <= {0, 16}
    try:
        check_alignment("file", arch, "backbone", budgets, everything.tensors)
        passed = True
    except InputError:
        passed = False
    assert passed == whole
