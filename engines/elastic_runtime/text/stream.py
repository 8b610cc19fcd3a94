"""Text as it comes: decoding token by token gives what decoding all of them at once gives, cut nowhere in a character.

A decoder of the `tokenizers` library is a chain. Most links look at one token at a time, or join bytes of neighbours;
for these a window of a few tokens decodes like the whole. What the chain may still change is held back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from elastic_runtime.errors import InputError

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
#: Links that make one text of all tokens: what comes after them sees it whole.
_JOINING = ("Fuse", "ByteLevel")
#: What transformers' clean_up_tokenization_spaces replaces, one after the other.
_CLEANED = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip
_REACH = max(len(found) for found, _ in _CLEANED) - 1


class Decodes(Protocol):
    """What a stream needs of a tokenizer."""

    def raw(self, ids: Sequence[int]) -> str:
        """The text of ids that are no special tokens, before spaces are cleaned up."""

    def token(self, token: int) -> str | None:
        """A token as it stands in the vocabulary; None for one that no text comes of."""

    @property
    def decoder(self) -> Mapping[str, Any]:
        """The decoder's description, empty where there is none."""

    @property
    def cleans_up(self) -> bool:
        """Whether spaces before punctuation are removed from what was decoded."""


class TextStream:
    """Decodes a growing sequence so that what was given out never changes, and its end is the whole text.

    Held back are: an incomplete character (one U+FFFD at the end); a run of byte tokens, which a decoder with byte
    fallback takes back altogether where it does not end as UTF-8; a space that may be removed. Where a link of the
    chain looks across all tokens at once, everything is held back until the end.
    """

    def __init__(self, tokenizer: Decodes) -> None:
        self._tokenizer = tokenizer
        links = list(_links(tokenizer.decoder))
        self._bytes = any(link.get("type") == "ByteFallback" for link in links)
        self._whole = _looks_across(links)
        self._ids: list[int] = []  # from the last certain place on; before it, what the decoder needs to see
        self._context = 0
        self._given = 0  # characters of the new ids that were given out
        self._cleaner = _Cleaner() if tokenizer.cleans_up else None

    def push(self, token: int) -> str:
        """The text that is certain after one more token; may be empty."""
        text = self._tokenizer.token(token)
        if text is None:
            return ""
        self._ids.append(token)
        if self._whole or (self._bytes and _BYTE.fullmatch(text)):
            return ""
        new = self._new_text()
        piece = new[self._given :].removesuffix(_UNKNOWN)
        self._given += len(piece)
        if not new.endswith(_UNKNOWN):
            self._advance()
        return self._cleaner.push(piece) if self._cleaner else piece

    def finish(self) -> str:
        """What was held back: an incomplete character stays U+FFFD."""
        piece = self._new_text()[self._given :]
        self._ids, self._context, self._given = [], 0, 0
        return self._cleaner.push(piece) + self._cleaner.finish() if self._cleaner else piece

    def _advance(self) -> None:
        """Forget what was before, unless nothing is seen of the rest: a decoder treats the beginning of a text as such,
        and what it strips there it would strip again.
        """
        rest = self._ids[self._context :]
        if self._tokenizer.raw(rest):
            self._ids, self._context, self._given = rest, len(rest), 0

    def _new_text(self) -> str:
        before = self._tokenizer.raw(self._ids[: self._context]) if self._context else ""
        return self._tokenizer.raw(self._ids)[len(before) :]


def clean_up(text: str) -> str:
    """Text without the spaces that transformers removes where a tokenizer's config asks for it."""
    for found, instead in _CLEANED:
        text = text.replace(found, instead)
    return text


class _Cleaner:
    """`clean_up` of a growing text. All that it replaces begins with a space: nothing reaches over a place that has
    none in the few characters before it.
    """

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        self._held += text
        cut = len(self._held)
        while (at := self._held.rfind(" ", max(0, cut - _REACH), cut)) >= 0:
            cut = at
        passed, self._held = self._held[:cut], self._held[cut:]
        return clean_up(passed)

    def finish(self) -> str:
        held, self._held = self._held, ""
        return clean_up(held)


class StopText:
    """Passes text on until one of `stops` appears in it; text that may become one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise InputError(
                "stop",
                expected="texts of at least one character",
                found="an empty one",
                todo="leave it out",
            )
        self._stops, self._held = tuple(stops), ""

    def push(self, text: str) -> tuple[str, bool]:
        """(text to pass on, whether a stop was met); what follows a stop, and the stop, are dropped."""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            return self._held[: min(found)], True
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        passed = self._held[: len(self._held) - keep]
        self._held = self._held[len(passed) :]
        return passed, False

    def finish(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return held


def decoder_of(state: bytes | None) -> Mapping[str, Any]:
    """A decoder's description by its serialised state."""
    found: Mapping[str, Any] = json.loads(state) if state else {}
    return found


def _links(decoder: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The links of a chain, chains in it taken apart."""
    if decoder.get("type") != "Sequence":
        return [decoder] if decoder else []
    return [link for part in decoder.get("decoders", ()) for link in _links(part)]


def _looks_across(links: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a link changes a text by what stands further on in it: a replacement or a strip of its end, behind one
    that joins all tokens. One that strips the beginning is seen to by the window.
    """
    kinds = [link.get("type") for link in links]
    joined = min((kinds.index(kind) for kind in _JOINING if kind in kinds), default=len(links))
    return any(
        link.get("type") not in (*_JOINING, "Strip") or (link.get("type") == "Strip" and link.get("stop", 0))
        for link in links[joined:]
    )


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper beginning of `stop` that `text` ends with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
