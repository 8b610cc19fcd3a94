"""What a bundle carries of a checkpoint besides weights, as copies: what is edited there later does not change here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elastic_export.checkpoint.companions import check_file
from elastic_export.checkpoint.reader import Checkpoint
from elastic_runtime.text.eos import checked_ids, optional_json

GENERATION = "generation_config.json"
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def ship_companions(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy them into a folder of the bundle.

    generation_config.json says there which ids end a text, also where the checkpoint's config.json alone does: that one
    describes the parent, and does not travel.

    Raises:
        InputError: see `find_companions`, `generation_config`.
        FileExistsError: the folder has a file of that name.
    """
    told = generation_config(checkpoint)
    for companion in checkpoint.companions():
        if told is not None and companion.name == GENERATION:
            continue
        target = folder / companion.relative_to(checkpoint.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with companion.open("rb") as source, target.open("xb") as copy:
            while piece := source.read(1 << 20):
                copy.write(piece)
    if told is not None:
        with (folder / GENERATION).open("x", encoding="utf-8") as file:
            json.dump(told, file, indent=2)
            file.write("\n")


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
