"""Which files a checkpoint's tensors are in: one `model.safetensors`, or shards named by an index."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from elastic_export.checkpoint.companions import check_file
from elastic_export.checkpoint.names import check_carried
from elastic_runtime.errors import InputError, advised
from elastic_runtime.format.jsonfile import json_type, read_json
from elastic_runtime.format.safetensors import TensorFile

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

#: Of other containers.
_OTHERS = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz", ".msgpack", ".h5")
#: A shard that says which of how many it is.
_COUNTED = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<of>\d+)\.safetensors")

#: How many names an error lists.
_SHOWN = 8

_COMPLETE = "name the folder that holds the checkpoint's shards, or download it again"
_CONVERT = "save the checkpoint as safetensors: transformers' save_pretrained reads it and does"
_REINDEX = "take index and shards from one save of the checkpoint"
_DAMAGED = "copy or download the shard again: it is damaged or not complete"


def open_shards(directory: Path, ignore: Sequence[str] = ()) -> dict[Path, TensorFile]:
    """The folder's shards, in the order of their names, headers read; each tensor is in exactly one.

    Without an index that is `model.safetensors`, or the only file there is, or all of a set that counts itself
    (`…-00001-of-00003`).

    Args:
        directory: the checkpoint's folder.
        ignore: globs of tensors that may be left out, so that index and shards need not agree about them.

    Raises:
        InputError: no weights, a single file beside the index of others, an index that is malformed, leaves the folder,
            names a missing shard or disagrees with the shards, a Git LFS pointer, or any fault of a shard.
    """
    single, index = directory / SINGLE, directory / INDEX
    check_file(index)
    if index.exists():
        return _open_index(directory, index, ignore)
    check_file(single)
    found = [single] if single.exists() else _without_index(directory)
    files = {path: _open(path) for path in found}
    _check_once(directory, files, ignore)
    return files


def weight_files(directory: Path) -> list[str]:
    """Names of all files there that hold weights, read or not."""
    return sorted(path.name for path in directory.iterdir() if path.suffix in (".safetensors", *_OTHERS))


def _without_index(directory: Path) -> list[Path]:
    names = [name for name in weight_files(directory) if name.endswith(".safetensors")]
    sets = [match for name in names if (match := _COUNTED.fullmatch(name))]
    if len(names) == 1 and not sets:
        return [directory / names[0]]
    counted = {(match["stem"], int(match["number"]), int(match["of"])) for match in sets}
    if sets and counted == {(sets[0]["stem"], number, len(names)) for number in range(1, len(names) + 1)}:
        return [directory / name for name in names]
    indices = sorted(path.name for path in directory.glob("*.index.json"))
    if names:
        found, todo = (
            f"{shorten(names + indices)}, and no index",
            f"write {INDEX}, or keep one whole set of shards alone",
        )
        if sets:
            todo = f"download what is missing of the shards, or their index as {INDEX}"
    else:
        others = weight_files(directory)
        found = f"neither, but {shorten(others)}" if others else "neither"
        todo = _CONVERT if others else _COMPLETE
        if others and all(name.endswith(".gguf") for name in others):
            todo = "export the checkpoint that it was made from: what such a file holds is mostly quantised"
    raise InputError(str(directory), expected=f"{SINGLE} or {INDEX}", found=found, todo=todo)


def _check_once(directory: Path, files: Mapping[Path, TensorFile], ignore: Sequence[str]) -> None:
    places: dict[str, str] = {}
    for path, file in files.items():
        for name in file.entries:
            if name in places and not ignored(name, ignore):
                found = f"it in {places[name]} and in {path.name}"
                raise InputError(f"{directory}, tensor {name!r}", expected="it once", found=found, todo=_REINDEX)
            places[name] = path.name


def _open(shard: Path) -> TensorFile:
    check_carried(str(shard), shard.name, "rename the file")
    check_file(shard)
    with advised(_DAMAGED):
        return TensorFile(shard)


def _open_index(directory: Path, index: Path, ignore: Sequence[str]) -> dict[Path, TensorFile]:
    weight_map = _weight_map(index)
    single = directory / SINGLE
    if single.exists() and SINGLE not in weight_map.values():
        found = f"both, and the index names {shorten(sorted(set(weight_map.values())))} alone"
        todo = "remove the one that does not belong to this checkpoint"
        raise InputError(str(directory), expected=f"{SINGLE} or {INDEX}", found=found, todo=todo)
    for tensor, shard in weight_map.items():
        check_file(directory / shard)
        if not (directory / shard).is_file():
            subject, todo = f"{index}, weight_map, {tensor!r}", "download the checkpoint again: it is not complete"
            raise InputError(subject, expected=f"the shard {shard}", found="no such file", todo=todo)
    files = {directory / name: _open(directory / name) for name in sorted(set(weight_map.values()))}
    _check_agreement(index, weight_map, {path.name: file for path, file in files.items()}, ignore)
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
        if not shard or shard in (".", "..") or "/" in shard:
            raise InputError(
                subject, expected="the name of a file in the same folder", found=json_type(shard), todo=_REINDEX
            )
        check_carried(subject, shard, "rename the file, and in the index too")
    return weight_map


def _check_agreement(
    index: Path, weight_map: dict[str, str], files: dict[str, TensorFile], ignore: Sequence[str]
) -> None:
    missing = [
        f"{tensor} ({shard})"
        for tensor, shard in weight_map.items()
        if tensor not in files[shard].entries and not ignored(tensor, ignore)
    ]
    if missing:
        expected = "every tensor of the index in the shard it names"
        raise InputError(str(index), expected=expected, found=f"not there: {shorten(missing)}", todo=_REINDEX)
    unlisted = [
        f"{tensor} ({shard})"
        for shard, file in files.items()
        for tensor in file.entries
        if weight_map.get(tensor) != shard and not ignored(tensor, ignore)
    ]
    if unlisted:
        expected = "every tensor of the shards in the index, once"
        raise InputError(str(index), expected=expected, found=f"besides: {shorten(unlisted)}", todo=_REINDEX)


def ignored(name: str, globs: Sequence[str]) -> bool:
    """Whether a tensor may be left out."""
    return any(fnmatchcase(name, glob) for glob in globs)


def shorten(names: list[str]) -> str:
    """The first names of a list, and how many there are more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
