"""Small tokenizers of every kind that the `tokenizers` library reads, trained on a few lines of many scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It doesn't care, does it? I'm sure they've seen we're here!",
    "def main(args: list[str]) -> None:\n    print('hello,  world')\n\treturn x != y",
    "Größe, naïve café, Ελληνικά και русский текст, 你好，世界。こんにちは 안녕하세요",
    "🙂 👍🏽 👨‍👩‍👧 emoji  and   spaces ...  end . of , line ! ok ? don ' t",
    "1234567890 3.14159 <tag> [brackets] {braces} \\backslash",
]
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
#: Tokens beside the vocabulary that are no special ones.
ADDED = ["<think>", "</think>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPACE = "▁"


def _bpe(size: int, *, alphabet: list[str] | None = None, specials: list[str] = SPECIAL) -> Any:
    return trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=alphabet or [], show_progress=False
    )


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Nemotron: a character may be cut between tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, _bpe(420, alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def byte_level_with_bos() -> Tokenizer:
    """The same behind a post-processor that begins every text, and with batches' truncation and padding left in it."""
    tokenizer = byte_level()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=16, pad_id=3, pad_token="<pad>")
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2: pieces of SentencePiece, bytes for what it lacks, and a beginning without its space."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.train_from_iterator([CORPUS[0], CORPUS[1], CORPUS[3][-30:]], _bpe(440, specials=SPECIAL + BYTES))
    return _with_byte_tokens(tokenizer)


def byte_fallback_without_strip() -> Tokenizer:
    """As Gemma: the same, and spaces stay where they are."""
    tokenizer = byte_fallback()
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _with_byte_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Byte tokens belong to the vocabulary: as special ones, which the trainer makes of them, they would be skipped."""
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] not in BYTES]
    return Tokenizer.from_str(json.dumps(document))


def metaspace_bpe() -> Tokenizer:
    """SentencePiece's BPE as the library writes it itself."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.train_from_iterator(CORPUS, _bpe(420))
    return tokenizer


def unigram() -> Tokenizer:
    """As T5 and XLM-R."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT: what is no word's beginning has a mark, and the decoder removes spaces before punctuation."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def word_level() -> Tokenizer:
    """Words and nothing that joins them: no decoder."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return tokenizer


def suffixed() -> Tokenizer:
    """As the first GPT: a word's end has the mark, and the last one of a text loses it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def letters_of_speech() -> Tokenizer:
    """As speech recognisers: equal neighbours are one."""
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "|": 1, "<unk>": 2, "a": 3, "b": 4, "'": 5}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.CTC()
    return tokenizer


def across_tokens() -> Tokenizer:
    """A decoder that replaces in what all tokens have become together."""
    tokenizer = byte_fallback()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("th", "TH")]
    )
    return tokenizer


def word_piece_as_it_stands() -> Tokenizer:
    """Without the spaces that its decoder removes by default."""
    tokenizer = word_piece()
    tokenizer.decoder = decoders.WordPiece("##", cleanup=False)
    return tokenizer


def bytes_in_a_chain() -> Tokenizer:
    """Byte pairs whose decoder is one link of a chain, behind one that looks at single tokens."""
    tokenizer = byte_level()
    tokenizer.decoder = decoders.Sequence([decoders.Replace("e", "E"), decoders.ByteLevel()])
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    function.__name__: function
    for function in (
        byte_level, byte_level_with_bos, byte_fallback, byte_fallback_without_strip, metaspace_bpe, unigram, word_piece,
        word_level, suffixed, letters_of_speech, across_tokens,
        word_piece_as_it_stands, bytes_in_a_chain,
    )
}  # fmt: skip

#: tokenizer_config.json in the ways it is written.
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"eos_token": "</s>", "bos_token": "<s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    "cleans up": {"eos_token": "</s>", "clean_up_tokenization_spaces": True},
    "adds tokens": {
        "eos_token": "<|end|>",
        "extra_special_tokens": ["<|tool|>"],
        "added_tokens_decoder": {
            "9001": {"content": "<think>", "special": False, "normalized": False, "lstrip": False, "rstrip": False,
                     "single_word": False},
            "9000": {"content": "<|end|>", "special": True, "normalized": False, "lstrip": False, "rstrip": False,
                     "single_word": False},
        },
    },
    "splits special tokens": {"eos_token": "</s>", "split_special_tokens": True},
    "no length": {"eos_token": {"content": "</s>", "__type": "AddedToken"}, "model_max_length": 10**30},
}  # fmt: skip


def write(folder: Path, kind: str, config: dict[str, Any], **files: Any) -> Path:
    """A folder with the files of a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    KINDS[kind]().save(str(folder / "tokenizer.json"))
    written = {"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast", **config}, **files}
    for name, content in written.items():
        (folder / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return folder
