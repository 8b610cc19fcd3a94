"""What a bundle carries of a checkpoint besides weights, as copies: what is edited there later does not change here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from elastic_export.checkpoint.companions import check_file
from elastic_export.checkpoint.reader import Checkpoint
from elastic_runtime.format.digest import file_digest
from elastic_runtime.format.manifest import FileEntry
from elastic_runtime.text.eos import checked_ids, optional_json
from elastic_runtime.text.files import GENERATION

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def shipped_files(checkpoint: Checkpoint) -> dict[str, Path | bytes]:
    """Path in the bundle -> the checkpoint's file that is copied there, or what is written there in its place.

    generation_config.json says there which ids end a text, also where the checkpoint's config.json alone does: that one
    describes the parent, and does not travel.

    Raises:
        InputError: see `find_companions`, `generation_config`.
    """
    companions = checkpoint.companions()
    files: dict[str, Path | bytes] = {file.relative_to(checkpoint.path).as_posix(): file for file in companions}
    if (told := generation_config(checkpoint)) is not None:
        files[GENERATION] = (json.dumps(told, indent=2) + "\n").encode()
    return files


def shipped_digests(checkpoint: Checkpoint) -> tuple[FileEntry, ...]:
    """Path, size and sha256 of each, as they would be shipped now. Raises InputError: see `shipped_files`."""
    return tuple(FileEntry(name, *_digest(source)) for name, source in sorted(shipped_files(checkpoint).items()))


def ship_companions(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy them into a folder of the bundle.

    Raises:
        InputError: see `shipped_files`.
        FileExistsError: the folder has a file of that name.
    """
    for name, source in shipped_files(checkpoint).items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as copy:
            if isinstance(source, bytes):
                copy.write(source)
                continue
            with source.open("rb") as file:
                shutil.copyfileobj(file, copy)


def _digest(source: Path | bytes) -> tuple[int, str]:
    return (len(source), sha256(source).hexdigest()) if isinstance(source, bytes) else file_digest(source)


def generation_config(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What to write in place of the checkpoint's generation_config.json; None where it says itself what ends a text, or
    nothing else does.

    As transformers makes one of a config.json, which older checkpoints keep these ids in.

    Raises:
        InputError: ids that are none, a file that is no JSON.
    """
    path = checkpoint.path / GENERATION
    check_file(path)
    own = optional_json(path)
    if checked(own, str(path)) is not None:
        return None
    config = {name: checkpoint.config[name] for name in _IDS if checkpoint.config.get(name) is not None}
    if checked(config, str(checkpoint.path / "config.json")) is None:
        return None
    return {**config, **{name: value for name, value in own.items() if value is not None}}


def checked(config: Mapping[str, Any], subject: str) -> object:
    """A config's `eos_token_id`; None where it has none. Raises InputError where it is no id and no list of ids."""
    checked_ids(found := config.get("eos_token_id"), f"{subject}, eos_token_id", "correct it, or take it out")
    return found
