"""Which files a checkpoint's tensors are in: one `model.safetensors`, or shards named by an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elastic_runtime.errors import InputError, advised
from elastic_runtime.format.jsonfile import json_type, read_json
from elastic_runtime.format.safetensors import TensorFile

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

#: How many names an error lists.
_SHOWN = 8

_COMPLETE = "name the folder that holds the checkpoint's shards, or download it again"
_REINDEX = "take index and shards from one save of the checkpoint"
_DAMAGED = "copy or download the shard again: it is damaged or not complete"


def open_shards(directory: Path) -> dict[Path, TensorFile]:
    """The folder's shards, in the order of their names, headers read; each tensor is in exactly one.

    Raises:
        InputError: neither or both of single file and index, an index that is malformed, leaves the folder, names a
            missing shard or disagrees with the shards, or any fault of a shard.
    """
    single, index = directory / SINGLE, directory / INDEX
    if single.exists() and index.exists():
        todo = "remove the one that does not belong to this checkpoint"
        raise InputError(str(directory), expected=f"{SINGLE} or {INDEX}", found="both", todo=todo)
    if index.exists():
        return _open_index(directory, index)
    if not single.exists():
        raise InputError(
            str(directory), expected=f"{SINGLE} or {INDEX}", found=_other_weights(directory), todo=_COMPLETE
        )
    return {single: _open(single)}


def _open(shard: Path) -> TensorFile:
    with advised(_DAMAGED):
        return TensorFile(shard)


def _open_index(directory: Path, index: Path) -> dict[Path, TensorFile]:
    weight_map = _weight_map(index)
    files = {directory / name: _open(directory / name) for name in sorted(set(weight_map.values()))}
    _check_agreement(index, weight_map, {path.name: file for path, file in files.items()})
    return files


def _weight_map(index: Path) -> dict[str, str]:
    """The index's map of tensor to shard; every shard is a file right in the folder (a symbolic link is one)."""
    with advised(_REINDEX):
        weight_map: Any = read_json(index, any_number=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(
            f"{index}, weight_map", expected="an object of tensor to shard", found=json_type(weight_map), todo=_REINDEX
        )
    for tensor, shard in weight_map.items():
        subject = f"{index}, weight_map, {tensor!r}"
        if not isinstance(shard, str):
            raise InputError(subject, expected="the name of a shard", found=json_type(shard), todo=_REINDEX)
        if not shard or shard in (".", "..") or any(sign in shard for sign in "/\\:\0"):
            raise InputError(
                subject, expected="the name of a file in the same folder", found=json_type(shard), todo=_REINDEX
            )
        if not (index.parent / shard).is_file():
            todo = "download the checkpoint again: it is not complete"
            raise InputError(subject, expected=f"the shard {shard}", found="no such file", todo=todo)
    return weight_map


def _check_agreement(index: Path, weight_map: dict[str, str], files: dict[str, TensorFile]) -> None:
    missing = [f"{tensor} ({shard})" for tensor, shard in weight_map.items() if tensor not in files[shard].entries]
    if missing:
        expected = "every tensor of the index in the shard it names"
        raise InputError(str(index), expected=expected, found=f"not there: {shorten(missing)}", todo=_REINDEX)
    unlisted = [
        f"{tensor} ({shard})"
        for shard, file in files.items()
        for tensor in file.entries
        if weight_map.get(tensor) != shard
    ]
    if unlisted:
        expected = "every tensor of the shards in the index, once"
        raise InputError(str(index), expected=expected, found=f"besides: {shorten(unlisted)}", todo=_REINDEX)


def _other_weights(directory: Path) -> str:
    others = sorted(path.name for path in directory.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".gguf"))
    return f"neither, but {shorten(others)}: convert them to safetensors" if others else "neither"


def shorten(names: list[str]) -> str:
    """The first names of a list, and how many there are more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
