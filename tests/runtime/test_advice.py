"""A malformed file of a bundle or a checkpoint is refused with a next step, whoever of our readers finds it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elastic_export.checkpoint.shards import open_shards
from elastic_runtime.errors import ElasticError, InputError
from elastic_runtime.format.golden import read_golden
from elastic_runtime.format.manifest_reader import read_manifest
from elastic_runtime.format.plugin_libraries import library_mark
from elastic_runtime.format.seal import EMPTY, seal
from elastic_runtime.format.weights import WeightRecipe
from elastic_runtime.text.eos import stop_ids

GOLDEN = Path(__file__).parents[1] / "golden"
#: Edits of sound files; those of headers.json are of files that Python alone reads.
MALFORMED = {
    group: cases
    for name in ("errors.json", "headers.json")
    for group, cases in json.loads((GOLDEN / name).read_text("utf-8")).items()
}


def _manifest(folder: Path, text: str) -> object:
    (folder / "manifest.json").write_text(seal(text.replace(text.split('"seal": "', 1)[1][:64], EMPTY)), "utf-8")
    return read_manifest(folder)


def _sealed_manifest(folder: Path, text: str) -> object:
    (folder / "manifest.json").write_text(text, "utf-8")
    return read_manifest(folder)


def _recipe(folder: Path, text: str) -> object:
    (folder / "weights.json").write_text(text, "utf-8")
    return WeightRecipe.read(folder / "weights.json")


def _tensors(path: Path, header: str) -> Path:
    path.write_bytes(len(header.encode()).to_bytes(8, "little") + header.encode() + bytes(100))
    return path


def _golden(folder: Path, text: str) -> object:
    return read_golden(_tensors(folder / "golden.safetensors", text))


def _shard(folder: Path, text: str) -> object:
    return open_shards(_tensors(folder / "model.safetensors", text).parent)


def _config(folder: Path, text: str) -> object:
    (folder / "generation_config.json").write_text(text, "utf-8")
    return stop_ids(folder)


def _library(folder: Path, text: str) -> object:
    (folder / "lib.so").write_bytes(b"elastic-plugins-abi/1 " + text.encode() + b"\0")
    return library_mark(folder / "lib.so")


@pytest.mark.parametrize(
    ("group", "read", "own", "todo"),
    [
        ("manifest", _manifest, 2, "export the bundle again, or use the elastic_runtime of the version that wrote it"),
        ("seal", _sealed_manifest, 3, ""),
        ("weights", _recipe, 2, "copy the bundle again, or export it again"),
        ("safetensors", _golden, 0, "export the bundle again"),
        ("safetensors", _shard, 0, "copy or download the shard again: it is damaged or not complete"),
        ("json", _config, 0, "correct it in the checkpoint and export again"),
        (
            "json",
            _library,
            0,
            "install elastic-plugins, or build plugins/ again with CMake and name its folder with --plugins",
        ),
    ],
)
def test_every_malformed_file_has_a_next_step(
    group: str, read: Callable[[Path, str], object], own: int, todo: str, tmp_path: Path
) -> None:
    """`own`: how many refusals know better than whoever asked for the file."""
    found = [_refusal(MALFORMED[group]["base"], case, read, tmp_path) for case in MALFORMED[group]["cases"]]
    refused = [error for error in found if error is not None]
    taken = 4 if read is _config else 1  # of another format's numbers, any
    assert len(refused) >= len([case for case in MALFORMED[group]["cases"] if case["expected"]]) - taken
    assert all(error.todo for error in refused)
    assert len([error for error in refused if error.todo != todo]) == own


def _refusal(base: str, case: dict[str, Any], read: Callable[[Path, str], object], folder: Path) -> ElasticError | None:
    try:
        read(folder, base.replace(case["replace"], case["by"], 1))
    except ElasticError as error:
        return error
    return None


def test_a_files_owner_advises_where_it_can_no_longer_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found no such file\. Copy the bundle again, or export it again\.$"):
        WeightRecipe.read(tmp_path / "weights.json")
    with pytest.raises(InputError, match=r"found no such file\. Export the bundle again\.$"):
        read_golden(tmp_path / "golden.safetensors")
