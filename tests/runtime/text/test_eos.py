"""Which ids end a text, as a bundle's files say it, with a tokenizer and without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elastic_runtime.errors import InputError
from elastic_runtime.text.eos import stop_ids

ADDED = {"added_tokens": [{"id": 7, "content": "<other>"}, {"id": 9, "content": "<end>"}]}
MODEL = {"model": {"vocab": {"<end>": 5, "a": 1}}}


def _folder(path: Path, **files: Any) -> Path:
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return path


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({}, ()),
        (
            {"generation_config": {"eos_token_id": 3}, "tokenizer_config": {"eos_token": "<end>"}, "tokenizer": ADDED},
            (3,),
        ),
        ({"generation_config": {"eos_token_id": [3, 11, -1]}}, (3,)),
        (
            {
                "generation_config": {"eos_token_id": None},
                "tokenizer_config": {"eos_token": "<end>"},
                "tokenizer": ADDED,
            },
            (9,),
        ),
        ({"tokenizer_config": {"eos_token": {"content": "<end>"}}, "tokenizer": {**ADDED, **MODEL}}, (9,)),
        ({"tokenizer_config": {"eos_token": "<end>"}, "tokenizer": MODEL}, (5,)),
        ({"tokenizer_config": {"eos_token": "<none>"}, "tokenizer": {**ADDED, **MODEL}}, ()),
        ({"tokenizer_config": {"eos_token": "<end>"}, "tokenizer": {"added_tokens": 1, "model": {"vocab": []}}}, ()),
        ({"tokenizer_config": {"eos_token": "<end>"}}, ()),
    ],
)
def test_the_generation_config_says_it_else_the_tokenizers_config(
    tmp_path: Path, files: dict[str, Any], ids: tuple[int, ...]
) -> None:
    assert stop_ids(_folder(tmp_path, **files), 11) == ids


def test_a_tokenizer_that_is_loaded_is_asked_and_its_file_is_not_read(tmp_path: Path) -> None:
    folder = _folder(tmp_path, tokenizer_config={"eos_token": "<end>"}, tokenizer=ADDED)
    assert stop_ids(folder, id_of={"<end>": 4}.get) == (4,)


@pytest.mark.parametrize("found", ["x", True, [1, 2.0]])
def test_what_is_no_id_is_refused(tmp_path: Path, found: object) -> None:
    folder = _folder(tmp_path, generation_config={"eos_token_id": found})
    with pytest.raises(InputError) as caught:
        stop_ids(folder)
    assert str(caught.value) == (
        f"generation_config.json: eos_token_id: expected an id or a list of ids, found {found}. "
        "Correct it in the checkpoint and export again."
    )
