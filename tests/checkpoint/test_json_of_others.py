"""What other people's tools write into a checkpoint's JSON is read, where transformers and safetensors read it."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.plan.text import check_text
from elastic_runtime.text.eos import stop_ids
from random_demo import write_demo

Edit = Callable[[dict[str, Any]], object]
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo") / "demo")


@pytest.fixture
def folder(tmp_path: Path, demo: Path) -> Path:
    return shutil.copytree(demo, tmp_path / "ckpt", copy_function=os.link)


#: By where it was seen: the file, and what is in it.
EDITS: dict[str, tuple[str, Edit]] = {
    "a length that nobody knows": ("tokenizer_config.json", lambda d: d.update(model_max_length=int(1e30))),
    "the same, saved by older versions": ("tokenizer_config.json", lambda d: d.update(model_max_length=1e30)),
    "no length at all": ("tokenizer_config.json", lambda d: d.update(model_max_length=math.inf)),
    "a score that was never set": ("tokenizer_config.json", lambda d: d.update(score=math.nan)),
    "a context without bounds": ("config.json", lambda d: d.update(max_position_embeddings=10**400)),
    "a temperature without bounds": ("generation_config.json", lambda d: d.update(temperature=math.inf)),
    "a length beyond 64 bits": ("generation_config.json", lambda d: d.update(max_length=1 << 80)),
    "metadata that is null": (INDEX, lambda d: d.update(metadata=None)),
    "metadata that is not there": (INDEX, lambda d: d.pop("metadata", None)),
    "a total size as a float": (INDEX, lambda d: d.update(metadata={"total_size": 1.5e30})),
}


@pytest.mark.parametrize(("name", "edit"), EDITS.values(), ids=EDITS)
def test_it_is_read(folder: Path, name: str, edit: Edit) -> None:
    document = json.loads((folder / name).read_text("utf-8"))
    edit(document)
    (folder / name).unlink()  # a link to the module's own
    (folder / name).write_text(json.dumps(document), "utf-8")
    assert check_text(Checkpoint.open(folder)) == ()
    assert stop_ids(folder)


@pytest.mark.parametrize("spelling", ["1e999", "1e400", "Infinity", "1.7976931348623157e+308"])
def test_no_limit_of_the_time_step_in_any_spelling(folder: Path, spelling: str) -> None:
    text = (folder / "config.json").read_text("utf-8")
    assert "Infinity" in text
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(text.replace("Infinity", spelling), "utf-8")
    assert Checkpoint.open(folder).architecture.time_step_limit == (0.0, math.inf)


def test_a_shard_whose_metadata_is_null(folder: Path) -> None:
    shard = next(folder.glob("*.safetensors"))
    data = shard.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.dumps({**json.loads(data[8 : 8 + length]), "__metadata__": None}).encode()
    shard.unlink()
    shard.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    Checkpoint.open(folder)
