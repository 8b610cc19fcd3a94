"""What tokenizer_config.json and its older companions add to tokenizer.json: special tokens by name, and added tokens.

The rules are those of transformers (PreTrainedTokenizerFast.from_pretrained): a checkpoint's files were written by it
or for it, and a token that it adds or calls special is one that its models were trained with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic_runtime.text.eos import content_of, optional_json

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("extra_special_tokens", "additional_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class AddedToken:
    """A token beside the vocabulary and how it is found in a text; flags of None are what the library takes itself."""

    content: str
    special: bool = True
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool | None = None

    @classmethod
    def of(cls, found: object) -> AddedToken | None:
        """A token that stands as text or as an object with `content`; None where it does neither."""
        if not (content := content_of(found)):
            return None
        if not isinstance(found, dict):
            return cls(content)
        given = {name: found[name] for name in _FLAGS if isinstance(found.get(name), bool)}
        return cls(content, **{"special": False, **given})

    def options(self) -> dict[str, bool]:
        """The flags as the library takes them."""
        found = {name: getattr(self, name) for name in _FLAGS}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class TokenizerFiles:
    """A folder's files beside tokenizer.json.

    Attributes:
        config: tokenizer_config.json.
        special: text of each special token by its name (`bos_token`), as templates see them.
        added: tokens that may not be in tokenizer.json, in the order in which they are added to it.
    """

    config: Mapping[str, Any]
    special: Mapping[str, str]
    added: tuple[AddedToken, ...]

    @classmethod
    def read(cls, folder: Path) -> TokenizerFiles:
        """Read them; a file that is not there says nothing. Raises InputError where one is no JSON."""
        config = optional_json(folder / "tokenizer_config.json")
        decoder, named = config.get("added_tokens_decoder"), dict(config)
        listed: list[AddedToken | None] = []
        if isinstance(decoder, dict):
            pairs = sorted(decoder.items(), key=lambda pair: int(pair[0]) if pair[0].isdecimal() else 0)
            listed = [AddedToken.of(token) for _, token in pairs]
        else:  # written before transformers 4.34
            named |= optional_json(folder / "special_tokens_map.json")
            listed = list(_legacy(folder, {content_of(token) for token in _special(named).values()}))
        special = _special(named)
        known = {token.content for token in listed if token}
        others = [token for token in (*special.values(), *_lists(named)) if content_of(token) not in known]
        wanted = [AddedToken(content_of(token)) for token in others]
        texts = {name: content_of(token) for name, token in special.items()}
        return cls(
            config, texts, tuple(dict.fromkeys(token for token in (*listed, *wanted) if token and token.content))
        )


def _special(config: Mapping[str, Any]) -> dict[str, object]:
    """Special tokens that have names: the usual ones, and a model's own."""
    own = [name for name in config if name.endswith("_token") and name not in NAMES and isinstance(config[name], str)]
    found = {name: config[name] for name in (*NAMES, *own) if content_of(config.get(name))}
    extra = config.get("extra_special_tokens")
    return found | (extra if isinstance(extra, dict) else {})


def _lists(config: Mapping[str, Any]) -> Iterator[object]:
    """Special tokens without names."""
    for name in _LISTS:
        found = config.get(name)
        yield from found if isinstance(found, list) else ()


def _legacy(folder: Path, special: set[str]) -> Iterator[AddedToken]:
    """Those of added_tokens.json, in the order of their ids."""
    found = optional_json(folder / "added_tokens.json")
    ids = {content: number for content, number in found.items() if type(number) is int}
    for content in sorted(ids, key=lambda content: ids[content]):
        yield AddedToken(content, special=content in special, normalized=content not in special)
