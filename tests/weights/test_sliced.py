"""Sub-models streamed out: ordinary checkpoints, byte-equal to our slices, that transformers loads and runs."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import re
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.checkpoint.config import config_document
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.all_kinds import AXES
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.attention import ATTENTION
from elastic_export.layers.axis import Axis
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import slice_array, tensor_runs
from elastic_export.weights import sliced as module
from elastic_export.weights.sliced import config_for, write_sliced
from elastic_runtime.errors import BuildError
from elastic_runtime.format.safetensors import encode_header
from synthetic import NANO_12B, random_architecture, random_budget, write_checkpoint, write_sparse_checkpoint


@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_is_the_slice(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    if seed % 4:  # large tensors: several bands each, with and without gaps in them
        monkeypatch.setattr(module, "_BAND_BYTES", 300 * seed)
        monkeypatch.setattr(module, "_GAP_BYTES", 100 * (seed % 4 - 1))
    a = random_architecture(rng)
    b, prefix = random_budget(a, rng, "b"), ("backbone", "model")[seed % 2]
    write_checkpoint(
        tmp_path / "p", a, random_weights(a, rng), [b], ("bf16", "fp32")[seed // 2 % 2], 1, prefix, seed % 3 == 0
    )
    parent = Checkpoint.open(tmp_path / "p")

    digests: dict[Path, str] = {}
    written = write_sliced(parent, b, tmp_path / "s", max_shard_bytes=30_000, digested=digests.__setitem__)

    sub = Checkpoint.open(tmp_path / "s", require_budgets=False)
    assert (sub.architecture, sub.prefix, sub.warnings) == (b.architecture(a), prefix, ())
    assert dict(sub.tensors) == {ref.name: ref for ref in written.values()}
    assert sub.config["hybrid_override_pattern"] == b.architecture(a).pattern
    for name, runs in tensor_runs(a, b, prefix).items():
        assert sub.read(written[name].name).tobytes() == slice_array(parent.read(name), runs).tobytes()
    assert digests == {shard: hashlib.sha256(shard.read_bytes()).hexdigest() for shard in sub.shards}
    for shard in sub.shards:
        inside = [ref.nbytes for ref in written.values() if ref.file == shard]
        assert sum(inside) <= 30_000 or len(inside) == 1


def test_the_full_budget_copies_the_parent(folder: Path, tmp_path: Path) -> None:
    parent = Checkpoint.open(folder)
    write_sliced(parent, parent.budgets["full"], tmp_path / "s")
    sub = Checkpoint.open(tmp_path / "s", require_budgets=False)
    assert [path.name for path in sub.shards] == ["model-00001-of-00001.safetensors"]
    assert all(sub.read(name).tobytes() == parent.read(name).tobytes() for name in parent.tensors)


def test_equal_calls_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    parent = Checkpoint.open(folder)
    for name in ("one", "two"):
        write_sliced(parent, parent.budgets["small"], tmp_path / name, max_shard_bytes=5000)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


def test_another_dtype(tmp_path: Path, parent: Architecture) -> None:
    weights = random_weights(parent, np.random.default_rng(0))
    write_checkpoint(tmp_path / "p", parent, weights, None, "bf16", fp32_vectors=True)
    checkpoint = Checkpoint.open(tmp_path / "p", require_budgets=False)
    written = write_sliced(checkpoint, Budget.full(parent, "full"), tmp_path / "s", dtype="fp16")
    sub = Checkpoint.open(tmp_path / "s", require_budgets=False)
    assert (sub.dtype, sub.config["torch_dtype"]) == ("fp16", "float16")
    for name, ref in written.items():
        vector = name.endswith((".A_log", ".D", ".dt_bias"))
        assert ref.dtype == ("fp32" if vector else "fp16")
        wanted = checkpoint.read(name).astype(np.float32 if vector else np.float16)
        assert sub.read(ref.name).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("keys", [("torch_dtype",), ("dtype",), ("torch_dtype", "dtype"), ()])
def test_no_dtype_of_the_parents_config_contradicts_the_new_one(
    tmp_path: Path, parent: Architecture, keys: tuple[str, ...]
) -> None:
    folder = write_checkpoint(tmp_path / "p", parent, random_weights(parent, np.random.default_rng(0)))
    config = json.loads((folder / "config.json").read_text())
    del config["torch_dtype"]
    (folder / "config.json").write_text(json.dumps(config | dict.fromkeys(keys, "bfloat16")))
    checkpoint = Checkpoint.open(folder, require_budgets=False)
    write_sliced(checkpoint, Budget.full(parent, "full"), tmp_path / "s", dtype="fp16")
    written = json.loads((tmp_path / "s/config.json").read_text())
    found = {key: written[key] for key in ("torch_dtype", "dtype") if key in written}
    assert found == dict.fromkeys(keys or ("torch_dtype",), "float16")


def test_prediction_heads_that_are_left_out_are_not_promised(tmp_path: Path, parent: Architecture) -> None:
    """A tool that builds what the config says would look for their tensors."""
    folder = write_checkpoint(tmp_path / "p", parent, random_weights(parent, np.random.default_rng(0)))
    config = json.loads((folder / "config.json").read_text())
    heads = {"num_nextn_predict_layers": 1, "mtp_hybrid_override_pattern": "*", "mtp_layers_block_type": ["attention"]}
    (folder / "config.json").write_text(json.dumps(config | heads | {"mtp_loss_scale": 0.1}))
    checkpoint = Checkpoint.open(folder, require_budgets=False, ignore_config=["mtp_loss_scale"])
    write_sliced(checkpoint, Budget.full(parent, "full"), tmp_path / "s")
    written = json.loads((tmp_path / "s/config.json").read_text())
    assert [key for key in written if "mtp" in key or "nextn" in key] == []


def test_a_value_that_does_not_fit_is_named(tmp_path: Path, parent: Architecture) -> None:
    weights = random_weights(parent, np.random.default_rng(0))
    weights["lm_head.weight"][3, 5] = 1e6
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path / "p", parent, weights), require_budgets=False)
    with pytest.raises(BuildError, match=r"tensor 'lm_head.weight': expected values that fp16 can hold, found 999424"):
        write_sliced(checkpoint, Budget.full(parent, "full"), tmp_path / "s", dtype="fp16")


@pytest.mark.parametrize(
    ("number", "todo"),
    [
        (errno.ENOSPC, "Free some space."),
        (errno.EFBIG, "Raise the limit of a file's size "),
        (errno.EACCES, "Name another output."),
    ],
)
def test_a_file_that_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, todo: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(number, "A reason")

    monkeypatch.setattr(module, "_write_shard", full)
    parent = Checkpoint.open(folder)
    with pytest.raises(BuildError, match=re.escape(f"to write the sub-model, found A reason. {todo}")):
        write_sliced(parent, parent.budgets["full"], tmp_path / "s")


def test_memory_stays_below_one_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 GB of holes through a budget: buffers and all else stay far below the largest tensor (1 GB)."""
    a = replace(NANO_12B, pattern="M-", ffn_sizes=(20480,), mamba_heads=(128,), vocab_size=40000)
    b = replace(Budget.full(a, "b"), hidden_size=512, mamba_head_dim=64)
    write_sparse_checkpoint(tmp_path / "p", a, [b], shards=2)
    checkpoint = Checkpoint.open(tmp_path / "p")
    with most_memory(monkeypatch) as most:
        write_sliced(checkpoint, b, tmp_path / "s")
    assert 0 < most() < 100 << 20


def test_memory_stays_below_one_dequantised_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in FP8, which is four times as large in float32."""
    a = replace(NANO_12B, pattern="M-", ffn_sizes=(20480,), mamba_heads=(128,), vocab_size=40000)
    b = replace(Budget.full(a, "b"), hidden_size=512, mamba_head_dim=64)
    checkpoint = Checkpoint.open(write_sparse_fp8(tmp_path / "p", a), require_budgets=False)
    assert checkpoint.formats == {"FP8": 6}
    with most_memory(monkeypatch) as most:
        write_sliced(checkpoint, b, tmp_path / "s")
    assert 0 < most() < 100 << 20


@contextmanager
def most_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Bytes that were held at most meanwhile, or more: the most of Python's and the most of mappings, which it does not
    see and which the files' buffers are.
    """
    mapped, peaks = 0, [0, 0]

    class Counted(mmap.mmap):
        def __new__(cls, *arguments: Any, **named: Any) -> Counted:
            nonlocal mapped
            self = super().__new__(cls, *arguments, **named)
            mapped += len(self)
            peaks[1] = max(peaks[1], mapped)
            return self

        def __del__(self) -> None:
            nonlocal mapped
            mapped -= len(self)

    monkeypatch.setattr(mmap, "mmap", Counted)
    tracemalloc.start()
    try:
        yield lambda: sum(peaks)
    finally:
        _, peaks[0] = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        monkeypatch.undo()


def write_sparse_fp8(folder: Path, arch: Architecture) -> Path:
    """Matrices are holes, which are zeros in FP8 too."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, shape in arch.tensor_shapes().items():
        tensors[name] = ("fp8_e4m3" if len(shape) == 2 else "bf16", shape)
        if len(shape) == 2:
            tensors[f"{name}_scale"] = ("fp32", ())
    header, entries = encode_header(tensors)
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as out:
        out.write(header)
        out.truncate(max(entry.offset + entry.nbytes for entry in entries.values()))
        for entry in entries.values():
            if entry.dtype == "fp32":
                out.seek(entry.offset)
                out.write(np.float32(0.01).tobytes())
    (folder / "config.json").write_text(json.dumps(config_document(arch)))
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
    return folder


def test_config_keeps_the_parents_keys(parent: Architecture, small: Budget) -> None:
    config = config_document(parent) | {
        "eos_token_id": 12, "auto_map": {"AutoConfig": "configuration.X"}, "chunk_size": 128, "layer_types": ["mamba"],
        "rms_norm_eps": 1e-5, "num_query_groups": 2,
    }  # fmt: skip
    ours = config_for(small.architecture(parent), config)
    assert (ours["eos_token_id"], ours["chunk_size"], ours["rms_norm_eps"]) == (12, 128, 1e-5)
    assert "auto_map" not in ours
    assert "layer_types" not in ours
    assert (ours["hybrid_override_pattern"], ours["num_hidden_layers"]) == ("M-*-M-", 6)
    assert (ours["intermediate_size"], ours["mamba_num_heads"]) == ([30, 21, 37], [4, 2])
    assert ours["elastic_per_layer_widths"] == ["intermediate_size", "mamba_num_heads"]


def test_lists_of_the_parent_do_not_outlive_its_layers(parent: Architecture) -> None:
    varied = replace(parent, ffn_sizes=(37, 20, 11))
    only_attention = replace(Budget.full(varied, "b"), skip_layers=(0, 1, 3, 4, 5, 6))
    ours = config_for(only_attention.architecture(varied), config_document(varied))
    assert "intermediate_size" not in ours
    assert "elastic_per_layer_widths" not in ours


@pytest.mark.parametrize("axis", [axis for axis in AXES if axis.per_layer], ids=lambda axis: axis.key)
def test_no_list_of_widths_outlives_layers_of_any_kind(parent: Architecture, axis: Axis) -> None:
    """Under any key: `config_document` writes none for a kind of which no layer is left."""
    others = tuple(i for i, kind, _ in parent.layers() if kind is not ATTENTION)
    config = config_document(parent) | {name: [5, 6, 7] for name in axis.names}
    ours = config_for(replace(Budget.full(parent, "b"), skip_layers=others).architecture(parent), config)
    assert [name for name in axis.names if isinstance(ours.get(name), list)] == []


@pytest.mark.xdist_group("transformers")
def test_transformers_computes_with_it(
    tmp_path: Path, parent: Architecture, naive_forward: Callable[..., np.ndarray[Any, Any]], monkeypatch: Any
) -> None:
    """Scalar widths: AutoModel loads the folder and gives the logits that the formulas give on the slices."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    from transformers.models.nemotron_h import modeling_nemotron_h

    original = modeling_nemotron_h.NemotronHMamba2Mixer.__init__

    def unclamped(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.time_step_limit = (
            0.0,
            float("inf"),
        )  # transformers clamps dt at time_step_min, the published code does not

    monkeypatch.setattr(modeling_nemotron_h.NemotronHMamba2Mixer, "__init__", unclamped)
    b = Budget("b", 20, (30,) * 3, (4,) * 3, 7, 4, (3, 7))
    for prefix in ("backbone", "model"):
        weights = random_weights(parent, np.random.default_rng(0))
        path = write_checkpoint(tmp_path / prefix, parent, weights, [b], "fp32", 1, prefix)
        written = write_sliced(Checkpoint.open(path), b, path / "sub", max_shard_bytes=9000)
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            path / "sub", dtype=torch.float32, output_loading_info=True
        )
        assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        sub = Checkpoint.open(path / "sub", require_budgets=False)
        ids = np.arange(11) * 5 % 61
        expected = naive_forward(sub.architecture, {ref.name: sub.read(ref.name) for ref in written.values()}, ids)
        with torch.no_grad():
            logits = model(torch.from_numpy(ids)[None], logits_to_keep=0).logits[0].numpy()
        assert np.linalg.norm(logits - expected) <= 1e-5 * np.linalg.norm(expected)


def test_tools_of_scalar_widths_refuse_lists(tmp_path: Path, folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    parent = Checkpoint.open(folder)
    write_sliced(parent, parent.budgets["small"], tmp_path / "s")
    assert "elastic_per_layer_widths" in json.loads((tmp_path / "s" / "config.json").read_bytes())
    with pytest.raises(Exception, match="intermediate_size"):
        transformers.AutoConfig.from_pretrained(tmp_path / "s")
