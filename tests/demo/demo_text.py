"""The text: Python's standard library, 3.11, without its tables and the packages installed beside it (PSF-2.0).

A file in 25 is held out, by its name. Tokens are of a byte-level BPE trained on the rest.
"""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from random_demo import SPECIAL_TOKENS

#: With the marks of a chat.
VOCABULARY = 2048
#: Tables of characters, another program, grammar and pages of a manual, test data: not written by people to be read.
_LEFT_OUT = {
    "site-packages", "dist-packages", "__pycache__", "encodings", "idlelib", "pydoc_data", "lib2to3", "turtledemo",
    "cjkencodings", "data", "ensurepip", "lib-dynload", "config",
}  # fmt: skip
_LARGEST = 400_000  # bytes: larger files are tables
_SPLITTER = "\n\n"
Tokens = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Corpus:
    """Text to learn from and text that is held out; of the held-out part the library's own sources alone, no tests."""

    training: str
    held_out: str

    @property
    def digest(self) -> str:
        """sha256 of both."""
        return hashlib.sha256(f"{self.training}\0{self.held_out}".encode()).hexdigest()


def read_corpus(folder: Path | None = None) -> Corpus:
    """The text of this machine's Python, or of `folder`, in an order of its own."""
    root = folder or Path(sysconfig.get_paths()["stdlib"])
    training, held_out = list[tuple[str, str]](), list[tuple[str, str]]()
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).parts
        if _LEFT_OUT & set(parts) or not 0 < file.stat().st_size <= _LARGEST:
            continue
        try:
            text = file.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        name = "/".join(parts)
        place = hashlib.sha256(name.encode()).hexdigest()
        if int(place, 16) % 25:
            training.append((place, text))
        elif not {"test", "tests"} & set(parts):
            held_out.append((place, text))
    return Corpus(*(_SPLITTER.join(text for _, text in sorted(part)) for part in (training, held_out)))


def train_tokenizer(text: str, vocabulary: int = VOCABULARY) -> Tokenizer:
    """A byte-level BPE of `vocabulary` tokens, the marks its last ones."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_pieces(text), trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def encoded(tokenizer: Tokenizer, text: str) -> Tokens:
    """Token ids [N]."""
    ids = [encoding.ids for encoding in tokenizer.encode_batch(_pieces(text), add_special_tokens=False)]
    return np.concatenate([np.array(part, np.uint16) for part in ids])


def _pieces(text: str, size: int = 100_000) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]
