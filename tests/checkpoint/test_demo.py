"""The built-in demo: what is installed is what was trained, whole in the cache after any accident, and writes text."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from elastic_export.checkpoint import demo as demo_module
from elastic_export.checkpoint.demo import DIGEST, SUMS, cache_folder, demo_checkpoint, sums
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.plan.text import check_text
from elastic_runtime.errors import BuildError
from elastic_runtime.text.tokenizer import Tokenizer

SHARD = "model.safetensors"
MOST = 8_000_000  # bytes that the program may grow by


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint.open(demo_checkpoint({"ELASTIC_CACHE": str(tmp_path_factory.mktemp("cache"))}))


def test_the_installed_bytes_are_those_that_were_trained() -> None:
    """Whoever trains another one sets DIGEST to what `pack` says: it keeps old caches from being taken for new ones."""
    shipped = demo_module._SHIPPED
    assert hashlib.sha256((shipped / SUMS).read_bytes()).hexdigest() == DIGEST
    assert (shipped / SUMS).read_bytes() == sums(shipped)
    assert sum(path.stat().st_size for path in shipped.iterdir()) <= MOST


def test_it_is_copied_once(tmp_path: Path) -> None:
    environ = {"ELASTIC_CACHE": str(tmp_path)}
    folder = demo_checkpoint(environ)
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert demo_checkpoint(environ) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made
    assert os.listdir(folder.parent) == [folder.name]
    assert folder.name == "elastic-demo"


@pytest.mark.parametrize("accident", ["flipped bit", "file lost", "file besides", "sums lost", "empty folder"])
def test_a_damaged_copy_is_made_again(tmp_path: Path, accident: str) -> None:
    environ = {"ELASTIC_CACHE": str(tmp_path)}
    folder = demo_checkpoint(environ)
    _harm(folder, accident)
    assert demo_checkpoint(environ) == folder
    assert hashlib.sha256((folder / SUMS).read_bytes()).hexdigest() == DIGEST
    assert Checkpoint.open(folder).warnings == ()


@pytest.mark.parametrize("accident", ["flipped bit", "file lost", "file besides", "sums lost", "empty folder"])
def test_a_damaged_installation_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accident: str) -> None:
    shipped = Path(shutil.copytree(demo_module._SHIPPED, tmp_path / "shipped"))
    monkeypatch.setattr(demo_module, "_SHIPPED", shipped)
    _harm(shipped, accident)
    with pytest.raises(BuildError) as caught:
        demo_checkpoint({"ELASTIC_CACHE": str(tmp_path / "cache")})
    assert str(caught.value).startswith(f"{shipped}: expected the demo model's files, {DIGEST}, found others")
    assert str(caught.value).endswith("Install elastic-export again.")
    assert not (tmp_path / "cache").exists()


def _harm(folder: Path, accident: str) -> None:
    shard = folder / SHARD
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


def test_read_only_files_are_copied_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = Path(shutil.copytree(demo_module._SHIPPED, tmp_path / "shipped"))
    for path in shipped.iterdir():
        path.chmod(0o444)
    monkeypatch.setattr(demo_module, "_SHIPPED", shipped)
    folder = demo_checkpoint({"ELASTIC_CACHE": str(tmp_path / "cache")})
    assert all(path.stat().st_mode & stat.S_IWUSR for path in folder.iterdir())


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


def test_its_text_is_whole(demo: Checkpoint) -> None:
    """Any text goes through its tokens and comes back; its marks are no text."""
    assert not check_text(demo)
    assert list(demo.budgets) == ["large", "medium", "small"]
    tokenizer, text = Tokenizer(demo.path), "def grüße(x):\n    return x  # 世界 €\n\n\t\0"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    [mark] = tokenizer.encode("<|end|>")
    assert mark in tokenizer.stop_ids()
    assert len(tokenizer.encode("    def __init__(self, name):")) < 12


def test_transformers_takes_the_tokenizer(demo: Checkpoint) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(demo.path)
    assert tokenizer.eos_token == "<|eos|>"
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|user|>hi<|end|><|assistant|>"
    generation = json.loads((demo.path / "generation_config.json").read_bytes())
    assert tokenizer.convert_ids_to_tokens(generation["eos_token_id"]) == ["<|eos|>", "<|end|>"]


def test_what_a_bundle_carries_along(demo: Checkpoint) -> None:
    names = [path.name for path in demo.companions()]
    assert names == ["LICENSE", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
