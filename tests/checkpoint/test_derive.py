"""Deriving budgets from cut checkpoints: found, proved, or refused with the reason."""

# ruff: noqa: E501  # a row of a table of messages is read in one line

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.torch import load_file, save_file

from elastic_export.checkpoint.budgets import budget_document, parse_budgets
from elastic_export.checkpoint.derive import derive
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import sub_model_name, tensor_runs
from elastic_export.runs import positions
from elastic_export.weights.sliced import config_for, write_sliced
from elastic_runtime.errors import InputError
from quantised_checkpoint import write_quantised
from small_checkpoint import PARENT
from synthetic import random_architecture, random_budget, write_checkpoint

SHARD = "model-00001-of-00001.safetensors"


@pytest.mark.parametrize("seed", range(25))
def test_what_was_cut_is_found(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = random_architecture(rng)
    written = [random_budget(a, rng, name) for name in ("one", "two")]
    path = write_checkpoint(tmp_path / "parent", a, random_weights(a, rng), written)
    for budget in written:
        write_sliced(Checkpoint.open(path), budget, tmp_path / budget.name, max_shard_bytes=50_000)
    found, _ = parse_budgets(derive(path, [tmp_path / "one", tmp_path / "two"]), a, "derived")
    assert list(found) == ["one", "two"]
    for budget in written:
        # A width that no kept layer has cannot be seen: the tensors are what must agree.
        assert tensor_runs(a, found[budget.name]) == tensor_runs(a, budget)


@pytest.fixture
def cut(folder: Path, tmp_path: Path) -> Path:
    parent = Checkpoint.open(folder)
    write_sliced(parent, parent.budgets["small"], tmp_path / "small")
    return tmp_path / "small"


def test_the_document(folder: Path, cut: Path, small: Budget) -> None:
    assert derive(folder, [folder, cut]) == {
        "format": "elastic-budgets/1",
        "budgets": {
            "ckpt": {},
            "small": {
                "hidden_size": 20,
                "intermediate_size": [30, 21, 37],
                "mamba_num_heads": [4, 6, 2],
                "mamba_head_dim": 7,
                "num_attention_heads": 4,
                "skip_layers": [3, 7],
            },
        },
    }
    del small


def test_a_config_with_one_width_for_layers_that_differ(folder: Path, cut: Path, edit: Callable[..., None]) -> None:
    edit(cut / "config.json", intermediate_size=30, mamba_num_heads=4, elastic_per_layer_widths=...)
    assert derive(folder, [cut])["budgets"]["small"]["intermediate_size"] == [30, 21, 37]


def test_another_prefix(folder: Path, cut: Path) -> None:
    tensors = safetensors.numpy.load_file(cut / SHARD)
    safetensors.numpy.save_file({n.replace("backbone.", "model."): t for n, t in tensors.items()}, cut / SHARD)
    index = cut / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("backbone.", "model."))
    assert list(derive(folder, [cut])["budgets"]) == ["small"]


def nudge(name: str) -> Callable[[dict[str, Any]], None]:
    """Flip the last bit of a tensor's last number."""

    def change(tensors: dict[str, Any]) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name].reshape(-1).view(np.uint16)[-1] ^= 1

    return change


def flat_heads(tensors: dict[str, Any]) -> None:
    """What a slicing script that forgets the groups would keep of A_log: the first heads, flat."""
    tensors["backbone.layers.0.mixer.A_log"] = tensors["parent"][:4].copy()


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "embeddings": (nudge("backbone.embeddings.weight"), "tensor 'backbone.embeddings.weight': expected the bytes of our slice of the parent's 'backbone.embeddings.weight', found others."),
    "head": (nudge("lm_head.weight"), "tensor 'lm_head.weight': expected the bytes of our slice of the parent's 'lm_head.weight', found others."),
    "final norm": (nudge("backbone.norm_f.weight"), "tensor 'backbone.norm_f.weight': expected the bytes"),
    "layer norm": (nudge("backbone.layers.1.norm.weight"), "layer 1: expected the bytes of our slice of a parent layer, found none; the nearest is layer "),
    "matrix": (nudge("backbone.layers.3.mixer.down_proj.weight"), "layer 3: expected the bytes of our slice of a parent layer, found none; the nearest is layer 4, different in backbone.layers.4.mixer.down_proj.weight."),
    "a flat prefix of heads": (flat_heads, "layer 0: expected the bytes of our slice of a parent layer, found none; the nearest is layer 0, different in backbone.layers.0.mixer.A_log."),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS)
def test_what_is_no_slice_is_refused(
    folder: Path, cut: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    tensors = dict(safetensors.numpy.load_file(cut / SHARD))
    tensors["parent"] = Checkpoint.open(folder).read("backbone.layers.0.mixer.A_log")
    change(tensors)
    del tensors["parent"]
    safetensors.numpy.save_file(tensors, cut / SHARD)
    with pytest.raises(InputError) as caught:
        derive(folder, [cut])
    assert str(caught.value).startswith(str(cut))
    assert message in str(caught.value)
    assert "Name the parent that it was cut from" in str(caught.value)


def test_what_is_no_part_of_the_model_may_be_ignored(folder: Path, cut: Path, edit: Callable[..., None]) -> None:
    tensors = dict(safetensors.numpy.load_file(cut / SHARD))
    safetensors.numpy.save_file(tensors | {"router": np.zeros(1, np.float32)}, cut / SHARD)
    index = cut / "model.safetensors.index.json"
    document = json.loads(index.read_bytes())
    document["weight_map"]["router"] = SHARD
    index.write_text(json.dumps(document))
    edit(cut / "config.json", mascot="dragon")
    for ignored, message in (({}, "mascot"), ({"ignore_config": ["mascot"]}, "unknown router")):
        with pytest.raises(InputError, match=message):
            derive(folder, [cut], **ignored)
    found = derive(folder, [cut], ignore_tensors=["router"], ignore_config=["mascot"])
    assert list(found["budgets"]) == ["small"]


def test_what_cannot_be_decided_is_said(tmp_path: Path, parent: Architecture) -> None:
    """Two FFN layers with equal weights: unless a layer between them was kept, nobody can tell which one was."""
    weights = random_weights(parent, np.random.default_rng(0))
    for name in list(weights):
        if ".layers.4." in name:
            weights[name] = weights[name.replace(".layers.4.", ".layers.6.")]
    path = write_checkpoint(tmp_path / "p", parent, weights)
    checkpoint = Checkpoint.open(path, require_budgets=False)
    for number, (skipped, decidable) in enumerate(
        {(4,): True, (6,): True, (5,): True, (4, 5): False, (5, 6): False}.items()
    ):
        cut = tmp_path / f"cut{number}"
        write_sliced(checkpoint, replace(Budget.full(parent, "b"), skip_layers=skipped), cut)
        if decidable:
            assert derive(path, [cut])["budgets"] == {cut.name: {"skip_layers": list(skipped)}}
            continue
        with pytest.raises(InputError) as caught:
            derive(path, [cut])
        assert "layer 4: expected one parent layer that it can be, found layers 4 and 6 of the parent" in str(
            caught.value
        )
        assert caught.value.todo.startswith("write the budget file by hand")


def test_layers_out_of_order(folder: Path, tmp_path: Path, parent: Architecture) -> None:
    checkpoint = Checkpoint.open(folder)
    weights = {name: checkpoint.read(name).astype(np.float32) for name in checkpoint.tensors}
    swapped = {n.replace(".4.", ".@.").replace(".1.", ".4.").replace(".@.", ".1."): t for n, t in weights.items()}
    cut = write_checkpoint(tmp_path / "cut", parent, swapped)
    with pytest.raises(
        InputError, match=r"layers: expected layers in the parent's order, found matches 0: \[0\], 1: \[4\], 2:"
    ):
        derive(folder, [cut])


def test_other_dtypes_prove_nothing(folder: Path, tmp_path: Path) -> None:
    parent = Checkpoint.open(folder)
    write_sliced(parent, parent.budgets["small"], tmp_path / "s", dtype="fp32")
    with pytest.raises(
        InputError, match="expected the parent's dtype bf16: equality cannot be proved across a cast, found fp32"
    ):
        derive(folder, [tmp_path / "s"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layer_norm_epsilon": 1e-6},
            "layer_norm_epsilon: expected the parent's 1e-05: no budget changes it, found 1e-06.",
        ),
        ({"time_step_limit": [0.0, 0.1]}, "time_step_limit: expected the parent's (0.0, inf): no budget changes it"),
    ],
)
def test_what_no_budget_changes(
    folder: Path, cut: Path, changes: dict[str, Any], message: str, edit: Callable[..., None]
) -> None:
    edit(cut / "config.json", **changes)
    with pytest.raises(InputError) as caught:
        derive(folder, [cut])
    assert message in str(caught.value)


def test_another_model_altogether(tmp_path: Path, folder: Path, parent: Architecture) -> None:
    for number, changed in enumerate(
        (replace(parent, hidden_size=25), replace(parent, mamba_head_dim=13), replace(parent, vocab_size=62))
    ):
        other = write_checkpoint(tmp_path / f"o{number}", changed, random_weights(changed, np.random.default_rng(0)))
        with pytest.raises(InputError, match=r"expected (at most )?the parent's (24|12|61)"):
            derive(folder, [other])
    wider = replace(parent, ffn_sizes=(38,) * 3)
    other = write_checkpoint(tmp_path / "wider", wider, random_weights(wider, np.random.default_rng(0)))
    with pytest.raises(InputError, match="layer 0: expected the bytes of our slice of a parent layer"):
        derive(folder, [other])


def test_names(folder: Path, cut: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--sliced: expected folders of different names, found small, small"):
        derive(folder, [cut, cut])
    cut.rename(tmp_path / "weights")
    with pytest.raises(InputError, match="budget name: expected a name the bundle does not use, found 'weights'"):
        derive(folder, [tmp_path / "weights"])


def test_the_budget_file_of_the_parent_is_not_needed(folder: Path, cut: Path) -> None:
    (folder / "elastic_config.json").write_text("nonsense")
    document = derive(folder, [cut])
    (folder / "elastic_config.json").write_text(json.dumps(document))
    assert list(Checkpoint.open(folder).budgets) == ["small"]


ALIGNED = replace(PARENT, hidden_size=64, ffn_sizes=(48,) * 3, mamba_head_dim=16, attention_head_dim=16)
QUANTISED = {"in_proj": "NVFP4", "out_proj": "FP8", "up_proj": "FP8", "down_proj": "NVFP4", "o_proj": "NVFP4"}
CUT = Budget("one", 48, (32, 16, 48), (4, 6, 2), 16, 4, (3,))


@pytest.fixture
def quantised_parent(tmp_path: Path) -> Path:
    weights = random_weights(ALIGNED, np.random.default_rng(2))
    return write_quantised(
        tmp_path / "parent", ALIGNED, weights, lambda module: QUANTISED.get(module.rsplit(".", 1)[-1]), shards=1
    ).folder


def found_in(parent: Path, *cut: Path) -> dict[str, Any]:
    return dict(derive(parent, list(cut))["budgets"])


def test_of_a_quantised_parent_the_rounded_sub_model_is_found(quantised_parent: Path, tmp_path: Path) -> None:
    write_sliced(Checkpoint.open(quantised_parent, require_budgets=False), CUT, tmp_path / "one")
    assert found_in(quantised_parent, tmp_path / "one") == {"one": budget_document(ALIGNED, CUT)}
    tensors = safetensors.numpy.load_file(tmp_path / "one" / SHARD)
    nudge("backbone.layers.1.mixer.up_proj.weight")(tensors)
    safetensors.numpy.save_file(tensors, tmp_path / "one" / SHARD)
    with pytest.raises(InputError, match=r"different in .*up_proj\.weight"):
        found_in(quantised_parent, tmp_path / "one")


def cut_codes(parent: Path, folder: Path, budget: Budget) -> Path:
    """A sub-model as quantised as the parent is: its codes and block scales cut, numbers for whole matrices kept."""
    [shard] = parent.glob("*.safetensors")
    tensors, cut = load_file(shard), {}
    for name, runs in tensor_runs(ALIGNED, budget).items():
        own, module = sub_model_name(name, ALIGNED, budget), name.removesuffix("weight")
        assert own is not None
        pieces = {piece: tensors[piece] for piece in tensors if piece in (name, f"{name}_scale", f"{name}_scale_2")}
        for piece, tensor in pieces.items():
            kept, every = tensor, ALIGNED.tensor_shapes()[name][-1] // tensor.shape[-1] if tensor.ndim else 1
            for axis, (size, axis_runs) in enumerate(zip(tensor.shape, runs, strict=False)):
                indices = positions(axis_runs)
                indices = indices[::every] // every if axis == tensor.ndim - 1 and every > 1 else indices
                assert indices.max() < size
                kept = kept.index_select(axis, torch.from_numpy(indices))
            cut[own.removesuffix("weight") + piece.removeprefix(module)] = kept.contiguous()
    folder.mkdir()
    save_file(cut, folder / "model.safetensors", {"format": "pt"})
    config = config_for(budget.architecture(ALIGNED), json.loads((parent / "config.json").read_text()))
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(parent / "hf_quant_config.json", folder)
    return folder


def test_of_a_quantised_parent_the_quantised_sub_model_is_found(quantised_parent: Path, tmp_path: Path) -> None:
    cut = cut_codes(quantised_parent, tmp_path / "one", CUT)
    assert Checkpoint.open(cut, require_budgets=False).formats == {"FP8": 5, "NVFP4": 7}
    assert found_in(quantised_parent, cut) == {"one": budget_document(ALIGNED, CUT)}


def test_a_budget_that_the_parent_could_not_keep_is_not_derived(quantised_parent: Path, tmp_path: Path) -> None:
    """Somebody cut the dequantised parent through its blocks; as a budget file the parent would refuse it."""
    parent = Checkpoint.open(quantised_parent, require_budgets=False)
    worth = {name: np.asarray(parent.read(name)) for name in parent.tensors}
    plain = write_checkpoint(tmp_path / "plain", ALIGNED, worth)
    write_sliced(Checkpoint.open(plain, require_budgets=False), replace(CUT, hidden_size=40), tmp_path / "one")
    with pytest.raises(InputError, match=r"derived budgets, budget 'one', hidden_size 40: expected columns of"):
        found_in(quantised_parent, tmp_path / "one")
