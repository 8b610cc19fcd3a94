"""Which ids end a text, read from a bundle's files. No tokenizer is needed for it: who feeds ids may have none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from elastic_runtime.errors import InputError, advised
from elastic_runtime.format.jsonfile import read_json
from elastic_runtime.text.files import GENERATION


def stop_ids(
    folder: Path, vocab_size: int | None = None, *, id_of: Callable[[str], int | None] | None = None
) -> tuple[int, ...]:
    """Ids that end a text: eos_token_id of generation_config.json, else eos_token of the tokenizer's config, else that
    of special_tokens_map.json. (An export writes what config.json says of them into generation_config.json.)

    Those outside of a model's vocabulary are left out where its size is given: it never makes them.

    Args:
        folder: of the bundle; a file that is not there says nothing.
        vocab_size: of the model.
        id_of: the id of a token, of a tokenizer that is loaded; without it tokenizer.json is read where it must be.

    Raises:
        InputError: eos_token_id is no id and no list of ids, or a file is no JSON.
    """
    found = optional_json(folder / GENERATION).get("eos_token_id")
    if found is None:
        files = ("tokenizer_config.json", "special_tokens_map.json")
        token = next((t for name in files if (t := content_of(optional_json(folder / name).get("eos_token")))), "")
        found = (id_of(token) if id_of else _id_of(folder, token)) if token else None
    ids = checked_ids(found, f"{GENERATION}: eos_token_id", "correct it in the checkpoint and export again")
    return tuple(i for i in ids if vocab_size is None or 0 <= i < vocab_size)


def checked_ids(found: object, subject: str, todo: str) -> list[int]:
    """The ids that a config's `eos_token_id` holds, none where it is null. Raises InputError where it holds others."""
    ids: list[Any] = found if isinstance(found, list) else [] if found is None else [found]
    if not all(type(i) is int for i in ids):
        raise InputError(subject, expected="an id or a list of ids", found=str(found), todo=todo)
    return ids


def optional_json(path: Path) -> Mapping[str, Any]:
    """The object of a JSON file, an empty one where there is no such file."""
    with advised("correct it in the checkpoint and export again"):
        return read_json(path, any_number=True) if path.is_file() else {}


def content_of(token: object) -> str:
    """A special token stands as text or as an object with `content`; empty where it does neither."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _id_of(folder: Path, token: str) -> int | None:
    """The id of a token in tokenizer.json: an added one, else one of the model's vocabulary."""
    tokenizer = optional_json(folder / "tokenizer.json")
    added = tokenizer.get("added_tokens")
    for entry in added if isinstance(added, list) else ():
        if isinstance(entry, dict) and content_of(entry) == token and type(entry.get("id")) is int:
            return int(entry["id"])
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    found = vocabulary.get(token) if isinstance(vocabulary, dict) else None
    return found if type(found) is int else None
