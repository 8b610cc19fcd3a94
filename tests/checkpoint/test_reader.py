"""Opening checkpoints: what is read, and that nothing is read before it is needed."""

# ruff: noqa: E501  # a row of a table of messages is read in one line

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from elastic_export.checkpoint.names import check_utf8
from elastic_export.checkpoint.reader import Checkpoint, checkpoint_name
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_runtime.errors import InputError
from elastic_runtime.format import safetensors as safetensors_reader
from synthetic import random_architecture, random_budget, write_checkpoint

UP = "backbone.layers.1.mixer.up_proj.weight"


@pytest.mark.parametrize("seed", range(24))
def test_what_we_write_we_open(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    architecture = random_architecture(rng)
    weights, dtype = random_weights(architecture, rng), ("bf16", "fp16", "fp32")[seed % 3]
    budgets = [random_budget(architecture, rng, f"b{i}") for i in range(3)]
    prefix, fp32_vectors = ("backbone", "model")[seed // 3 % 2], seed % 5 == 0
    write_checkpoint(tmp_path, architecture, weights, budgets, dtype, 1 + seed % 4, prefix, fp32_vectors)

    checkpoint = Checkpoint.open(tmp_path)

    assert (checkpoint.architecture, checkpoint.prefix, checkpoint.dtype) == (architecture, prefix, dtype)
    assert list(checkpoint.budgets.values()) == budgets
    assert len(checkpoint.shards) == 1 + seed % 4
    assert {name: ref.shape for name, ref in checkpoint.tensors.items()} == architecture.tensor_shapes(prefix)
    for name, ref in checkpoint.tensors.items():
        array = checkpoint.read(name)
        expected = weights[name.replace("model.", "backbone.", 1)].astype(array.dtype)
        raw = ref.file.read_bytes()[ref.offset : ref.offset + ref.nbytes]
        assert array.tobytes() == raw == expected.tobytes()
        wide = fp32_vectors and name.endswith((".A_log", ".D", ".dt_bias"))
        assert ref.dtype == ("fp32" if wide else dtype)


def test_a_checkpoint_of_the_library(tmp_path: Path, parent: Architecture) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    letters = {"M": "linear_attention", "-": "mlp", "*": "full_attention"}
    config = transformers.NemotronHConfig(
        vocab_size=61, hidden_size=24, intermediate_size=37, layers_block_type=[letters[kind] for kind in parent.pattern],
        mamba_num_heads=6, mamba_head_dim=12, n_groups=2, ssm_state_size=5, conv_kernel=3, num_attention_heads=6,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    transformers.NemotronHForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    checkpoint = Checkpoint.open(tmp_path, require_budgets=False)
    assert checkpoint.architecture == parent
    assert (checkpoint.dtype, checkpoint.warnings) == ("bf16", ())


def test_names_and_companions(folder: Path) -> None:
    carried = ["LICENSE", "NOTICE.md", "chat_template.jinja", "generation_config.json", "merges.txt", "tokenizer.json",
               "tokenizer_config.json", "special_tokens_map.json", "vocab.json"]  # fmt: skip
    for name in [*carried, "README.md", "modeling.py", "secrets.txt"]:
        (folder / name).write_text("x")
    for name in ("tokenizer_dir", "LICENSES", "docs"):
        (folder / name).mkdir()
    checkpoint = Checkpoint.open(folder)
    assert [w for w in checkpoint.warnings if w.startswith(f"{folder}: LICENSES, tokenizer_dir not carried along: a ")]
    assert checkpoint.name == "ckpt"
    assert [path.name for path in checkpoint.companions()] == sorted(carried)


def test_a_snapshot_of_the_cache_is_named_by_its_repository(tmp_path: Path, folder: Path) -> None:
    repository = tmp_path / "models--nvidia--Nemotron-Elastic-12B"
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for path in folder.iterdir():
        shutil.move(path, repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert Checkpoint.open(snapshot).name == checkpoint_name(snapshot) == "Nemotron-Elastic-12B"


def test_names_that_are_no_text_are_refused(tmp_path: Path, folder: Path) -> None:
    """They are names of the system all the same, but no JSON file can hold them."""
    strange = shutil.copytree(folder, tmp_path / os.fsdecode(b"ck\xff"))
    with pytest.raises(
        InputError, match=r"ck\\udcff: expected a folder with a name in UTF-8, found .* Rename the folder"
    ):
        Checkpoint.open(strange)
    (tmp_path / "link").symlink_to(strange)
    with pytest.raises(InputError, match=r"link: expected a folder with a name in UTF-8"):
        Checkpoint.open(tmp_path / "link")
    (folder / os.fsdecode(b"notes\xff")).write_text("nobody carries this along")
    Checkpoint.open(folder)
    (folder / os.fsdecode(b"LICENSE\xff")).write_text("all rights")
    message = (
        r"LICENSE\\udcff: expected a file name in UTF-8, found 'LICENSE\\udcff'\. Rename or remove the file: a bun"
    )
    with pytest.raises(InputError, match=message):
        Checkpoint.open(folder).companions()


@pytest.mark.parametrize(("encoding", "errors"), [("ascii", "surrogateescape"), ("latin-1", "strict")])
def test_of_a_right_name_the_locale_is_blamed(monkeypatch: pytest.MonkeyPatch, encoding: str, errors: str) -> None:
    name = "mödel".encode().decode(encoding, errors)
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode(encoding, errors))
    with pytest.raises(InputError, match=r"a locale that reads .mödel. otherwise\. Set one of UTF-8: export"):
        check_utf8("here", name, "a name in UTF-8", "rename it")


def test_of_a_name_that_the_locale_cannot_write_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    with pytest.raises(InputError, match=r"a locale that cannot write 'm\\xf6del'\. Set one of UTF-8: export"):
        check_utf8("here", "mödel", "a name in UTF-8", "rename it")


@pytest.mark.parametrize("name", ["a: b", "a\\b", "a\nb", "a\x01", "a<", 'a"', "a|", "a?", "a*"])
def test_what_no_manifest_can_list_is_refused(folder: Path, name: str) -> None:
    """At once, and not by the bundle's reader after all engines are built."""
    show = name.encode("unicode_escape").decode()
    (folder / f"LICENSE {name}").write_text("all rights")
    with pytest.raises(InputError, match=re.escape(f"control characters, found 'LICENSE {show}'. Rename or remove")):
        Checkpoint.open(folder).companions()
    (folder / f"LICENSE {name}").unlink()
    index = json.loads((folder / "model.safetensors.index.json").read_bytes())
    old = sorted(set(index["weight_map"].values()))[0]
    (folder / old).rename(folder / f"{name}.safetensors")
    index["weight_map"] = {t: f"{name}.safetensors" if s == old else s for t, s in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=re.escape(f"found '{show}.safetensors'. Rename the file, and in the index")):
        Checkpoint.open(folder)


def test_a_shard_without_an_index_is_refused_by_its_name(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    odd = folder / "model: x.safetensors"
    odd.write_bytes(b"")
    with pytest.raises(InputError, match=re.escape(f"{odd}: expected a plain file name, without / ")):
        Checkpoint.open(folder)


def test_opening_maps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_reader, "MappedFile", lambda _: pytest.fail("a shard was mapped"))
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(pytest.fail.Exception, match="a shard was mapped"):
        checkpoint.read(UP)


def test_released_tensors_read_the_same(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    checkpoint.release(UP)
    view = checkpoint.read(UP)
    before = view.tobytes()
    checkpoint.release(UP)
    assert view.tobytes() == checkpoint.read(UP).tobytes() == before


def test_reading_a_name_nobody_knows(folder: Path) -> None:
    with pytest.raises(
        InputError, match="tensor 'x': expected a tensor of the architecture, found no such name\\. See the names in"
    ):
        Checkpoint.open(folder).read("x")


def test_a_misspelt_name_gets_the_nearest(folder: Path) -> None:
    with pytest.raises(InputError, match=f"found no such name. The nearest is {UP}."):
        Checkpoint.open(folder).read(UP.replace("up_proj", "up_prj"))


def test_budgets_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"format": "elastic-budgets/1", "budgets": {"mine": {}}}')
    assert list(Checkpoint.open(folder, budgets_file=other).budgets) == ["mine"]
    with pytest.raises(InputError, match="expected a JSON file, found no such file"):
        Checkpoint.open(folder, budgets_file=tmp_path / "none.json")


def test_without_budgets_all_three_ways_out_are_named(folder: Path) -> None:
    (folder / "elastic_config.json").unlink()
    with pytest.raises(InputError) as caught:
        Checkpoint.open(folder)
    assert str(caught.value) == (
        f"{folder}, budgets: expected the file elastic_config.json, or --budgets FILE, found neither. Write one; or "
        f"derive it from cut checkpoints, the vendor's: elastic-export budgets derive --parent {folder} --sliced DIR "
        f"--output {folder}/elastic_config.json; or have budgets of a size proposed: elastic-export budgets propose "
        f"--checkpoint {folder} --params 25.1K,16.7K --text FILE --output {folder}/elastic_config.json."
    )
    assert Checkpoint.open(folder, require_budgets=False).budgets == {}


def test_widths_from_shapes(tmp_path: Path, parent: Architecture, edit: Callable[..., None]) -> None:
    varied = replace(parent, ffn_sizes=(37, 20, 11), mamba_heads=(6, 2, 4))
    write_checkpoint(tmp_path, varied, random_weights(varied, np.random.default_rng(0)))
    edit(tmp_path / "config.json", intermediate_size=37, mamba_num_heads=6)
    with pytest.raises(InputError, match=r"by config\.json, found"):
        Checkpoint.open(tmp_path, require_budgets=False)
    assert Checkpoint.open(tmp_path, require_budgets=False, widths_from_shapes=True).architecture == varied


def test_one_shard_read_as_bfloat16(tmp_path: Path, parent: Architecture) -> None:
    weights = random_weights(parent, np.random.default_rng(0))
    write_checkpoint(tmp_path, parent, weights, [Budget.full(parent, "full")])
    assert Checkpoint.open(tmp_path).read(UP).dtype == ml_dtypes.bfloat16
