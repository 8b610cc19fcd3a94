"""Which characters of a text the ids are, and whether some are lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, pre_tokenizers, processors

from elastic_runtime.errors import InputError
from elastic_runtime.text.tokenizer import Tokenizer


def saved(folder: Path, tokenizer: tokenizers.Tokenizer) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


@pytest.fixture(scope="module")
def of_bytes(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Bytes, two of them merged; its post-processor trims spans and begins a text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate([*letters, "Ġa"])}
    made = tokenizers.Tokenizer(models.BPE(vocab, [("Ġ", "a")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.add_special_tokens([AddedToken("<s>", special=True)])
    begin = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 257)])
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), begin])
    return saved(tmp_path_factory.mktemp("spans"), made)


@given(st.text(max_size=30).filter(lambda text: "<s>" not in text))
def test_spans_are_all_of_the_text_blanks_too(of_bytes: Tokenizer, text: str) -> None:
    ids, spans = of_bytes.spans(text)
    assert ids == of_bytes.encode(text, special=False)
    places = [place for start, end in dict.fromkeys(spans) for place in range(start, end)]
    assert places == list(range(len(text)))
    assert not of_bytes.loses(text)
    assert of_bytes.encode(text)[0] == 257  # the post-processor is there again


def test_ids_of_one_character_have_the_same_span_and_a_merged_blank_belongs_to_its_token(of_bytes: Tokenizer) -> None:
    _, spans = of_bytes.spans("é a")
    assert spans == [(0, 1), (0, 1), (1, 3)]


@pytest.mark.parametrize(("unknown", "text"), [(None, "aqb"), (None, "abq"), ("?", "aqb"), (None, "q")])
def test_characters_that_have_no_id_are_lost(unknown: str | None, text: str, tmp_path: Path) -> None:
    found = saved(tmp_path, tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1, "?": 2}, [], unk_token=unknown)))
    assert found.loses(text)
    assert not found.loses("ab")
    assert not found.loses("")


def test_blanks_between_words_are_not_lost(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found = saved(tmp_path, made)
    assert not found.loses(" a  b\n")
    assert found.spans(" a  b\n") == ([0, 1], [(1, 2), (4, 5)])


def test_what_the_library_raises_names_the_file(tmp_path: Path) -> None:
    found = saved(tmp_path, tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="?")))
    with pytest.raises(
        InputError, match=r"tokenizer\.json: expected a tokenizer that encodes and decodes, found .*Missing"
    ):
        found.encode("b")
