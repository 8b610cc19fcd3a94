"""A tokenizer.json of the family's size, 131,072 ids: of the vocabulary that travels in PyPI's mistral-common.

Only the package's data is read, so it may be installed without its dependencies
(`pip install --no-deps mistral-common`).
"""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path
from typing import Any

SPECIAL = 1000  # ids before the vocabulary's own, most of them unused
NAMES = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "<|im_start|>", "<think>", "[IMG]")


def vocabulary_file() -> Path | None:
    """The vocabulary, None where mistral-common is not installed."""
    package = importlib.util.find_spec("mistral_common")
    places = [Path(place) / "data" for place in (package.submodule_search_locations or ())] if package else []
    return next((path for place in places if (path := place / "tekken_240911.json").is_file()), None)


def tokenizer_json(file: Path, *, pairs: bool = True) -> dict[str, Any]:
    """The vocabulary as the `tokenizers` library reads it; merges as pairs, or as texts with a space between."""
    data = json.loads(file.read_text("utf-8"))
    size = data["config"]["default_vocab_size"] - SPECIAL
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in data["vocab"][:size]}
    special = [*NAMES, *(f"<SPECIAL_{number}>" for number in range(len(NAMES), SPECIAL))]
    letters = _letters()
    written = {token: "".join(letters[byte] for byte in token) for token in ranks}
    vocab = {name: number for number, name in enumerate(special)}
    vocab |= {written[token]: SPECIAL + rank for token, rank in ranks.items()}
    merges = [(written[left], written[right]) for left, right in _merges(ranks)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    end = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": data["config"]["pattern"]}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": number, "content": name} | flags for number, name in enumerate(special)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, end]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": end,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
            "vocab": vocab, "merges": merges if pairs else [f"{left} {right}" for left, right in merges],
        },
    }  # fmt: skip


def _letters() -> list[str]:
    """The letter of each byte, GPT-2's."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every way to make a token of two others, by the token's rank."""
    merges = []
    for token in ranks:
        ways = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(left, right) for left, right in ways if left in ranks and right in ranks]
        merges += sorted(known, key=lambda way: (ranks[way[0]], ranks[way[1]]))
    return merges
