"""The demo model: the same everywhere, whole after any accident, and an exercise for every axis."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.checkpoint import demo as demo_module
from elastic_export.checkpoint.budgets import KEYS
from elastic_export.checkpoint.demo import (
    ARCHITECTURE,
    BUDGETS,
    DIGEST,
    EOS,
    SUMS,
    byte_tokenizer,
    cache_folder,
    demo_checkpoint,
    write_demo,
)
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.layers.kept import slice_array, sub_model_name, tensor_runs
from elastic_runtime.errors import BuildError, InternalError


def test_it_is_the_same_on_every_machine(tmp_path: Path) -> None:
    """After a change of the recipe set DIGEST anew: it keeps old caches from being taken for new ones."""
    sums = (write_demo(tmp_path / "demo") / SUMS).read_bytes()
    assert hashlib.sha256(sums).hexdigest() == DIGEST


def other_recipe(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A demo of other weights, whole by its own sums."""
    right = demo_module.random_weights
    with monkeypatch.context() as patch:
        patch.setattr(
            demo_module, "random_weights", lambda *given: {name: -array for name, array in right(*given).items()}
        )
        return write_demo(folder)


def test_another_model_in_its_place_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"ELASTIC_CACHE": str(tmp_path)}
    folder = demo_checkpoint(environ)
    shutil.rmtree(folder)
    other = hashlib.sha256((other_recipe(monkeypatch, folder) / SUMS).read_bytes()).hexdigest()
    assert other != DIGEST
    assert demo_checkpoint(environ) == folder
    assert hashlib.sha256((folder / SUMS).read_bytes()).hexdigest() == DIGEST


def test_a_machine_that_makes_another_model_is_a_fault_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module, "write_demo", lambda folder: other_recipe(monkeypatch, folder))
    with pytest.raises(InternalError, match=rf"made here: expected the digest {DIGEST}, found [0-9a-f]{{64}}\."):
        demo_checkpoint({"ELASTIC_CACHE": str(tmp_path)})
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_it_is_made_once(tmp_path: Path) -> None:
    environ = {"ELASTIC_CACHE": str(tmp_path)}
    folder = demo_checkpoint(environ)
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert demo_checkpoint(environ) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made
    assert os.listdir(folder.parent) == [folder.name]
    assert folder.name == "elastic-demo"


@pytest.mark.parametrize("accident", ["flipped bit", "file lost", "file besides", "sums lost", "empty folder"])
def test_a_damaged_one_is_made_again(tmp_path: Path, accident: str) -> None:
    environ = {"ELASTIC_CACHE": str(tmp_path)}
    folder = demo_checkpoint(environ)
    shard = folder / "model-00001-of-00002.safetensors"
    if accident == "flipped bit":
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
    elif accident == "file besides":
        (folder / "x").write_text("x")
    for path in {"file lost": [shard], "sums lost": [folder / SUMS], "empty folder": folder.iterdir()}.get(
        accident, []
    ):
        path.unlink()
    assert demo_checkpoint(environ) == folder
    assert hashlib.sha256((folder / SUMS).read_bytes()).hexdigest() == DIGEST
    assert Checkpoint.open(folder).warnings == ()


def test_several_processes_at_once(tmp_path: Path) -> None:
    code = "from elastic_export.checkpoint.demo import demo_checkpoint as d; print(d())"
    environ = os.environ | {"ELASTIC_CACHE": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    runs = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = {run.communicate()[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0] * 4
    assert outputs == {str(demo_checkpoint(environ))}
    assert os.listdir(Path(outputs.pop()).parent) == ["elastic-demo"]


def test_where_the_cache_is(tmp_path: Path) -> None:
    assert cache_folder({"ELASTIC_CACHE": str(tmp_path)}) == tmp_path
    assert cache_folder({"ELASTIC_CACHE": "", "XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "elastic-export"
    assert cache_folder({}) == Path.home() / ".cache" / "elastic-export"


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BuildError) as caught:
        demo_checkpoint({"ELASTIC_CACHE": str(tmp_path / "file")})
    assert "expected to write the demo model, found Not a directory. Name a folder you can write with" in str(
        caught.value
    )
    assert stat.S_ISREG((tmp_path / "file").stat().st_mode)


def test_budgets_exercise_every_key_and_nest(demo: Checkpoint) -> None:
    entries = BUDGETS["budgets"]
    assert list(entries) == ["large", "medium", "small"]
    assert {key for entry in entries.values() for key in entry} == set(KEYS)
    assert isinstance(entries["small"]["intermediate_size"], list)
    assert isinstance(entries["small"]["mamba_num_heads"], list)
    assert demo.warnings == ()
    for budget in demo.budgets.values():
        assert set(budget.architecture(ARCHITECTURE).pattern) == {"M", "-", "*"}


def test_every_layer_matters(demo: Checkpoint, naive_forward: Callable[..., np.ndarray[Any, Any]]) -> None:
    a, ids = demo.architecture, np.frombuffer(b"Every layer matters.", np.uint8)
    for b in demo.budgets.values():
        sub = b.architecture(a)
        weights = {
            str(sub_model_name(n, a, b)): slice_array(demo.read(n), runs).astype(np.float64)
            for n, runs in tensor_runs(a, b).items()
        }
        whole = naive_forward(sub, weights, ids)
        for layer in range(len(sub.pattern)):
            assert np.linalg.norm(naive_forward(sub, weights, ids, layer) - whole) >= 0.05 * np.linalg.norm(whole)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint.open(demo_checkpoint({"ELASTIC_CACHE": str(tmp_path_factory.mktemp("cache"))}))


def test_tokens_are_bytes(demo: Checkpoint) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(demo.path / "tokenizer.json"))
    text = "Grüße, 世界!\n\t\0  €"
    assert tokenizer.encode(text).ids == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    assert tokenizer.encode("<|eos|>").ids == [EOS]
    assert tokenizer.get_vocab_size() == demo.architecture.vocab_size
    assert len(byte_tokenizer()["model"]["vocab"]) == 256


def test_transformers_takes_the_tokenizer(demo: Checkpoint) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(demo.path)
    assert tokenizer.eos_token_id == EOS
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|user|>hi<|end|><|assistant|>"
    generation = json.loads((demo.path / "generation_config.json").read_bytes())
    assert tokenizer.convert_ids_to_tokens(generation["eos_token_id"]) == ["<|eos|>", "<|end|>"]


def test_what_a_bundle_carries_along(demo: Checkpoint) -> None:
    names = [path.name for path in demo.companions()]
    assert names == ["LICENSE", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
