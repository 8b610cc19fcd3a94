"""Which ids end a text, for tests/golden/eos.json: files of a bundle as texts, and what Python makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from elastic_runtime.errors import ElasticError
from elastic_runtime.text.tokenizer import Tokenizer

VOCAB = 4
_MARK = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [{"id": 3, "content": "<|end|>", **_MARK}, {"id": 9, "content": "<|far|>", **_MARK}],
    "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
    "model": {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": {"a": 0, "b": 1, "c": 2},
        "merges": [],
    },
}  # fmt: skip
#: generation_config.json and tokenizer_config.json; None: no such file
FILES: list[tuple[str | None, str | None]] = [
    (None, None),
    ('{"eos_token_id": 2}', None),
    ('{"eos_token_id": [2, 0]}', '{"eos_token": "<|end|>"}'),
    ('{"eos_token_id": []}', '{"eos_token": "<|end|>"}'),
    ('{"eos_token_id": null}', '{"eos_token": "<|end|>"}'),
    ("{}", '{"eos_token": {"content": "<|end|>", "special": true}}'),
    (None, '{"eos_token": "b"}'),
    (None, '{"eos_token": "nowhere"}'),
    (None, '{"eos_token": null}'),
    (None, '{"eos_token": "b", "model_max_length": 1000000000000000019884624838656}'),
    ('{"eos_token_id": 1, "max_length": 18446744073709551616}', None),
    (None, '{"eos_token": 3}'),
    (None, '{"eos_token": "<|far|>"}'),
    ('{"eos_token_id": [2, 4, -1, 99]}', None),
    ('{"eos_token_id": "two"}', None),
    ('{"eos_token_id": [2, true]}', None),
    ('{"eos_token_id": 2.0}', None),
    ('{"eos_token_id": {"id": 2}}', None),
]


def eos_cases(folder: Path) -> dict[str, Any]:
    """Ids or error of every pair of files; `folder` is scratch."""
    tokenizer = json.dumps(TOKENIZER)
    cases = []
    for number, (generation, config) in enumerate(FILES):
        place = folder / f"eos.{number}"
        place.mkdir()
        (place / "tokenizer.json").write_text(tokenizer)
        files = {"generation_config.json": generation, "tokenizer_config.json": config}
        for name, text in files.items():
            if text is not None:
                (place / name).write_text(text)
        cases.append(files | _stop_ids(place))
    return {"vocab": VOCAB, "tokenizer": tokenizer, "cases": cases}


def _stop_ids(folder: Path) -> dict[str, Any]:
    try:
        ids = Tokenizer(folder).stop_ids(VOCAB)
    except ElasticError as error:
        return {"error": f"{error.subject}|{error.expected}|{error.found}", "ids": []}
    return {"error": None, "ids": list(ids)}
