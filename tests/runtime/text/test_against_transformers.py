"""Text whole and streamed, ids and templates: equal to what transformers makes of the same files."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.text.tokenizer import Tokenizer

from . import tokenizer_kinds

transformers = pytest.importorskip("transformers")

Pair = tuple[Tokenizer, Any]
WORDS = [
    "the", " quick", "don't", " n't", " 's", " ' ", " .", "  ", "\n", "\t", "…", "é", "ß", "Ελ", "рус", "你", "好，",
    "こん", "안녕", "🙂", "👍🏽", "👨‍👩‍👧", "<think>", "</think>", "<s>", "</s>", "<|end|>", "<|tool|>", "\u0000",
    "\ufffd", "\u200b", "\u0301", "a", "B", "12", "3.14", "<0xE4>", "▁", "##x", "|", "'",
]  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """`pair(kind, config)`: our tokenizer and theirs, of one folder."""

    @cache
    def made(kind: str, config: str) -> Pair:
        folder = tmp_path_factory.mktemp("tokenizer")
        tokenizer_kinds.write(folder, kind, tokenizer_kinds.CONFIGS[config])
        return Tokenizer(folder), transformers.PreTrainedTokenizerFast.from_pretrained(folder)

    return made


def texts(seed: int, count: int) -> Iterator[str]:
    """Strings of words that tokenizers trip over, and of any characters."""
    draw = random.Random(seed)
    for _ in range(count):
        if draw.random() < 0.7:
            yield "".join(draw.choice(WORDS) for _ in range(draw.randrange(12)))
        else:
            end = draw.choice((0x7F, 0x800, 0xD800, 0x20000))
            points = [draw.randrange(0x20, end) for _ in range(draw.randrange(9))]
            yield "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    stream = tokenizer.stream()
    return "".join([*map(stream.push, ids), stream.finish()])


CASES = [(kind, config) for kind in tokenizer_kinds.KINDS for config in tokenizer_kinds.CONFIGS]


@pytest.mark.parametrize(("kind", "config"), CASES)
def test_200_strings_and_as_many_sequences_of_ids(pair: Callable[..., Pair], kind: str, config: str) -> None:
    """65 pairs of tokenizer and config: 13,000 strings of each."""
    ours, theirs = pair(kind, config)
    draw = random.Random(kind + config)
    for text in texts(hash_of(kind + config), 200):
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.encode(text, special=False) == theirs(text, add_special_tokens=False)["input_ids"]
        anything = [draw.randrange(len(theirs) + 3) for _ in range(draw.randrange(14))]
        for sequence in (ids, anything):
            assert ours.decode(sequence, special=True) == theirs.decode(sequence)
            whole = theirs.decode(sequence, skip_special_tokens=True)
            assert ours.decode(sequence) == whole
            assert streamed(ours, sequence) == whole


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode(), "little") % (1 << 32)


@given(data=st.data(), kind=st.sampled_from(list(tokenizer_kinds.KINDS)))
def test_any_ids_stream_as_they_decode(pair: Callable[..., Pair], data: Any, kind: str) -> None:
    ours, _ = pair(kind, data.draw(st.sampled_from(list(tokenizer_kinds.CONFIGS))))
    ids = data.draw(st.lists(st.integers(0, ours.size + 2), max_size=40))
    assert streamed(ours, ids) == ours.decode(ids)


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "byte_fallback_without_strip"])
@given(data=st.binary(max_size=24))
def test_any_bytes_stream_as_they_decode(pair: Callable[..., Pair], kind: str, data: bytes) -> None:
    """UTF-8 or none of it, byte by byte."""
    ours, theirs = pair(kind, "plain")
    names = {f"<0x{byte:02X}>": byte for byte in range(256)} if "fallback" in kind else letters()
    tokens = {byte: theirs.convert_tokens_to_ids(name) for name, byte in names.items()}
    ids = [tokens[byte] for byte in data]
    assert streamed(ours, ids) == ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@cache
def letters() -> dict[str, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {letter: byte for byte, letter in bytes_to_unicode().items()}


def test_most_text_is_given_at_once(pair: Callable[..., Pair]) -> None:
    """Whole at the end is equal too, and of no use to who waits."""
    for kind in ("byte_level", "byte_fallback", "metaspace_bpe", "unigram", "word_piece", "suffixed"):
        ours, _ = pair(kind, "cleans up")
        stream, ids = ours.stream(), ours.encode("The quick brown fox jumps over the lazy dog", special=False)
        given = sum(len(stream.push(token)) for token in ids[:-2])
        assert given >= len(ours.decode(ids[:-2])) - 4, kind


_PLAIN = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
LEGACY: dict[str, dict[str, Any]] = {
    "special_tokens_map.json": {
        "special_tokens_map": {
            "eos_token": "</s>", "bos_token": {"content": "<s>", **_PLAIN}, "additional_special_tokens": ["<|tool|>"],
        }
    },
    "added_tokens.json": {"added_tokens": {"<|tool|>": 9002, "<|end|>": 9001}},
    "both": {"added_tokens": {"<|end|>": 9001}, "special_tokens_map": {"eos_token": "<|end|>"}},
}  # fmt: skip


@pytest.mark.parametrize("files", LEGACY.values(), ids=LEGACY)
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "word_piece"])
def test_files_of_older_versions(tmp_path: Path, kind: str, files: dict[str, Any]) -> None:
    tokenizer_kinds.write(tmp_path, kind, {"unk_token": "<unk>"}, **files)
    ours, theirs = Tokenizer(tmp_path), transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for text in texts(5, 100):
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
