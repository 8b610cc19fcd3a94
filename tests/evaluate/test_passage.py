"""How a text is read, tokenised and cut: every token once, every byte counted, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elastic_export.checkpoint.json_files import write_json
from elastic_export.evaluate.passage import Passage, read_passage
from elastic_runtime.errors import InputError
from elastic_runtime.text.tokenizer import Tokenizer
from random_demo import BOS, byte_tokenizer

Read = Callable[..., Passage]
TEXT = "Ein Satz über 三つ目 und 😀."


def with_bos(folder: Path) -> Tokenizer:
    """A tokenizer that begins every text with BOS."""
    special = {"BOS": {"id": "BOS", "ids": [BOS], "tokens": ["<|bos|>"]}}
    single = [{"SpecialToken": {"id": "BOS", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    processor = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}
    folder.mkdir(exist_ok=True)
    write_json(folder / "tokenizer.json", byte_tokenizer() | {"post_processor": processor})
    return Tokenizer(folder)


def words(folder: Path, vocab: dict[str, int], unknown: str | None) -> Tokenizer:
    """A tokenizer of whole words; `unknown` is what it gives for others."""
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": unknown or ""}
    whole = byte_tokenizer() | {"model": model, "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": None}
    folder.mkdir()
    write_json(folder / "tokenizer.json", whole | {"added_tokens": []})
    return Tokenizer(folder)


def read_with(tmp_path: Path, tokenizer: Tokenizer, text: str, **options: Any) -> Passage:
    (tmp_path / "text.txt").write_bytes(text.encode())
    return read_passage(tmp_path / "text.txt", tokenizer, **({"vocab": 264, "context": 16} | options))


def scored_ids(passage: Passage) -> list[int]:
    return [int(token) for window in passage.windows for token in window.ids[len(window.ids) - window.scored :]]


@given(
    text=st.text(min_size=2, max_size=60),
    context=st.integers(2, 20),
    stride=st.none() | st.integers(1, 19),
    limit=st.none() | st.integers(1, 70),
    bos=st.booleans(),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_token_is_scored_once_in_order_and_its_bytes_are_counted(
    text: str, context: int, stride: int | None, limit: int | None, bos: bool, source: Path, tmp_path: Path
) -> None:
    """Tokens are bytes here: scored ids are the counted bytes, whole characters of them."""
    stride = None if stride is None else min(stride, context - 1)
    tokenizer, data = with_bos(tmp_path / "bos") if bos else Tokenizer(source), text.encode()
    try:
        passage = read_with(tmp_path, tokenizer, text, context=context, stride=stride, tokens=limit)
    except InputError as refused:
        if refused.expected != "a token that others predict":
            raise
        few = len(text[0].encode()) if bos else len(text[:2].encode()) - len(text[0].encode())
        assert limit is not None
        assert limit < few
        return
    first = 0 if bos else len(text[0].encode())
    scored = bytes(scored_ids(passage))
    assert scored == data[first : first + len(scored)]
    assert passage.tokens == passage.nbytes == len(scored)
    scored.decode()  # whole characters
    if limit is None:
        assert first + len(scored) == len(data)
    else:
        assert limit - 3 <= len(scored) <= limit or first + len(scored) == len(data)
    assert passage.whole == (first + len(scored) == len(data))
    for window in passage.windows:
        assert len(window.ids) <= context
        assert 1 <= window.scored < len(window.ids)
        assert not bos or window.ids[0] == BOS


def test_windows_of_the_default_stride_are_as_few_as_can_be(tmp_path: Path, source: Path) -> None:
    plain = read_with(tmp_path, Tokenizer(source), "abcdefghij", context=4)
    assert [bytes(window.ids.tolist()) for window in plain.windows] == [b"abcd", b"defg", b"ghij"]
    begun = read_with(tmp_path, with_bos(tmp_path / "bos"), "abcdefghij", context=4)
    assert [bytes(window.ids[1:].tolist()) for window in begun.windows] == [b"abc", b"def", b"ghi", b"j"]
    assert (plain.tokens, begun.tokens) == (9, 10)


def test_bytes_are_those_of_the_text_where_the_tokenizer_leaves_blanks_out(tmp_path: Path) -> None:
    tokenizer = words(tmp_path / "words", {"ein": 0, "über": 1, "satz": 2, "?": 3}, "?")
    passage = read_with(tmp_path, tokenizer, "ein  über\tsatz\n")
    assert scored_ids(passage) == [1, 2]
    assert passage.nbytes == len("  über\tsatz\n".encode())


def test_what_a_reader_should_know_is_noted(tmp_path: Path, source: Path) -> None:
    short = read_with(tmp_path, Tokenizer(source), "abc")
    assert [note.split(": ")[1] for note in short.notes] == [
        "3 tokens, fewer than a context of 16",
        "the tokenizer begins a text with no token, so that nothing predicts the first one",
    ]
    assert list(read_with(tmp_path, with_bos(tmp_path / "bos"), TEXT).notes) == []


def test_a_limit_reads_no_more_of_a_long_text_than_it_needs(tmp_path: Path, source: Path) -> None:
    tokenizer = Tokenizer(source)
    asked, spans = list[int](), tokenizer.spans
    tokenizer.spans = lambda text: asked.append(len(text)) or spans(text)  # type: ignore[func-returns-value,method-assign]
    passage = read_with(tmp_path, tokenizer, 3000 * TEXT, tokens=100)
    assert passage.tokens == 100
    assert not passage.whole
    assert max(asked) < 10_000


REFUSED = [
    (b"", {}, "a text", "an empty file"),
    (b"abc\xff\xfe", {}, "UTF-8", "byte 0xff at offset 3, which is none"),
    ("Straße".encode("latin-1"), {}, "UTF-8", "byte 0xdf at offset 4, which is none"),
    (b"a", {}, "a token that others predict", "none among its 1"),
    ("😀".encode(), {}, "a token that others predict", "none among its 4"),
    (b"abc", {"context": 1}, "2 tokens or more: 1 before the first that is scored", "1"),
    (b"abc", {"stride": 16}, "from 1 to 15 tokens, so that windows of 16 leave none out", "16"),
    (b"abc", {"stride": 0}, "from 1 to 15 tokens, so that windows of 16 leave none out", "0"),
    (b"abc", {"tokens": 0}, "1 or more", "0"),
    (b"abz", {"vocab": 122}, "ids below the model's 122", "the id 122"),
]


@pytest.mark.parametrize(("data", "options", "expected", "found"), REFUSED)
def test_what_cannot_be_scored_is_refused(
    data: bytes, options: dict[str, int], expected: str, found: str, tmp_path: Path, source: Path
) -> None:
    (tmp_path / "text.txt").write_bytes(data)
    with pytest.raises(InputError) as error:
        read_passage(tmp_path / "text.txt", Tokenizer(source), **({"vocab": 264, "context": 16} | options))
    assert (error.value.expected, error.value.found) == (expected, found)
    assert error.value.todo


def test_no_text_and_a_folder_are_refused(tmp_path: Path, source: Path) -> None:
    for path, found in ((tmp_path / "none.txt", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError) as error:
            read_passage(path, Tokenizer(source), vocab=264, context=16)
        assert (error.value.subject, error.value.found) == (str(path), found)


@pytest.mark.parametrize("unknown", ["?", None])
def test_a_character_that_the_tokenizer_does_not_know_is_named(unknown: str | None, tmp_path: Path) -> None:
    letters = {letter: number for number, letter in enumerate("abü ?")}
    model = {"type": "BPE", "vocab": letters, "merges": [], "unk_token": unknown}
    bare = {"model": model, "pre_tokenizer": None, "decoder": None, "added_tokens": []}
    write_json(tmp_path / "tokenizer.json", byte_tokenizer() | bare)
    tokenizer = Tokenizer(tmp_path)
    assert read_with(tmp_path, tokenizer, "aüb ab").nbytes == 6
    with pytest.raises(InputError) as error:
        read_with(tmp_path, tokenizer, "aüb üβ ab")
    assert error.value.expected == "characters that the tokenizer knows"
    assert error.value.found == "'β' at offset 7"


def test_ids_are_those_of_the_whole_text(tmp_path: Path, source: Path) -> None:
    passage = read_with(tmp_path, Tokenizer(source), TEXT, context=64)
    assert np.array_equal(passage.windows[0].ids, np.frombuffer(TEXT.encode(), np.uint8))
