"""The text that is scored: read, tokenised and cut into windows, its bytes counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from elastic_runtime.errors import InputError
from elastic_runtime.text.tokenizer import Tokenizer

Ints = npt.NDArray[np.int64]
_BEGIN = 16  # characters a token of the first guess at how much text holds so many tokens


@dataclass(frozen=True)
class Window:
    """Tokens that are fed as one sequence; the last `scored` of them are scored, each predicted from all before it."""

    ids: Ints
    scored: int


@dataclass(frozen=True)
class Passage:
    """A text as it is scored.

    Attributes:
        name: the file's, printable.
        sha256: of the whole file.
        windows: each scored token is scored in one of them only.
        tokens: how many are scored.
        nbytes: bytes of the file that these tokens are.
        prefix: ids that the tokenizer begins a text with; they begin every window and are not scored.
        context: tokens of a window at most, `prefix` among them.
        stride: tokens from the beginning of a window to that of the next.
        whole: whether the windows reach the end of the text.
    """

    name: str
    sha256: str
    windows: tuple[Window, ...]
    tokens: int
    nbytes: int
    prefix: tuple[int, ...]
    context: int
    stride: int
    whole: bool

    @property
    def notes(self) -> Iterator[str]:
        """What a user should know of it."""
        if len(self.windows) == 1 and len(self.windows[0].ids) < self.context and self.whole:
            yield f"{self.name}: {len(self.windows[0].ids)} tokens, fewer than a context of {self.context}: one window"
        if not self.prefix:
            yield f"{self.name}: the tokenizer begins a text with no token, so that nothing predicts the first one"


def read_passage(
    path: Path, tokenizer: Tokenizer, *, vocab: int, context: int, stride: int | None = None, tokens: int | None = None
) -> Passage:
    """Read a text and cut it.

    Every window begins with what the tokenizer begins a text with (BOS, where it does). Windows of the default stride
    overlap by no token that is scored: by none with such a beginning, by one without, for then each window's first
    token only predicts. A smaller stride gives every scored token more of the text before it.

    Bytes are those of the file: of the text from after the first token, where nothing predicts that one, to its end, or
    to where `tokens` cut it. A character of several tokens is scored whole or not at all.

    Args:
        path: the text, UTF-8.
        tokenizer: of the model.
        vocab: ids that the model knows.
        context: tokens of a window.
        stride: see above; None: as large as can be.
        tokens: score at most so many, the text's first ones; None: all.

    Raises:
        InputError: no such file, nothing in it, no UTF-8, characters that the tokenizer does not know, ids that the
            model does not know, nothing that could be scored, or a context or stride that cannot be.
    """
    data = _read(path)
    text = _decoded(data, path)
    prefix = _prefix(tokenizer)
    stride = _checked_stride(context, stride, len(prefix))
    ids, spans, text = _tokenised(tokenizer, text, path, tokens)
    if ids and max(*ids, *prefix, 0) >= vocab:
        found, todo = f"the id {max(*ids, *prefix)}", "use the tokenizer that the model was trained with"
        raise InputError(str(path), expected=f"ids below the model's {vocab}", found=found, todo=todo)
    first = 0 if prefix else _next_border(spans, 1)
    last = len(ids) if tokens is None or first + tokens >= len(ids) else _border_before(spans, first + tokens)
    if last <= first:
        found, todo = f"none among its {len(ids)}", "give a longer text, or more --tokens"
        raise InputError(str(path), expected="a token that others predict", found=found, todo=todo)
    start, end = spans[first - 1][1] if first else 0, len(text) if last == len(ids) else spans[last - 1][1]
    windows = tuple(_windows(ids[:last], first, prefix, context, stride))
    count = sum(window.scored for window in windows)
    nbytes = len(text[start:end].encode())
    whole = end == len(text) and len(text.encode()) == len(data)
    digest = sha256(data).hexdigest()
    return Passage(printable(path.name), digest, windows, count, nbytes, prefix, context, stride, whole)


def printable(name: str) -> str:
    """A file's name as text: what is no character, or none that shows, as Python escapes it."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in name)


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        found = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(str(path), expected="a text file", found=found, todo="name a file with --text") from None
    if not data:
        raise InputError(str(path), expected="a text", found="an empty file", todo="name another file with --text")
    return data


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x} at offset {error.start}, which is none"
        todo = "convert the text: iconv -f ENCODING -t UTF-8"
        raise InputError(str(path), expected="UTF-8", found=found, todo=todo) from None


def _prefix(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What it puts before a text: special tokens at whose end the text's own begin."""
    plain, whole = tokenizer.encode("a", special=False), tokenizer.encode("a")
    places = [at for at in range(len(whole) - len(plain) + 1) if whole[at : at + len(plain)] == plain]
    return tuple(whole[: places[0]]) if places else ()


def _checked_stride(context: int, stride: int | None, prefix: int) -> int:
    least = max(prefix, 1) + 1
    if context < least:
        expected = f"{least} tokens or more: {max(prefix, 1)} before the first that is scored"
        raise InputError("--context", expected=expected, found=str(context), todo="name a larger one")
    most = context - max(prefix, 1)
    if stride is not None and not 1 <= stride <= most:
        expected = f"from 1 to {most} tokens, so that windows of {context} leave none out"
        raise InputError("--stride", expected=expected, found=str(stride), todo="name one of these, or leave it out")
    return most if stride is None else stride


def _tokenised(
    tokenizer: Tokenizer, text: str, path: Path, tokens: int | None
) -> tuple[list[int], list[tuple[int, int]], str]:
    """Ids, spans, and as much of the text as they are of: with a limit a beginning that has more tokens than it."""
    if tokens is not None and tokens < 1:
        raise InputError("--tokens", expected="1 or more", found=str(tokens), todo="name more, or leave it out")
    wanted = None if tokens is None else tokens + _BEGIN
    size = len(text) if wanted is None else _BEGIN * wanted
    while True:
        part = text[:size]
        _check_known(tokenizer, part, path)
        ids, spans = tokenizer.spans(part)
        if wanted is None or len(ids) > wanted or size >= len(text):
            return ids, spans, part
        size *= 4


def _check_known(tokenizer: Tokenizer, text: str, path: Path) -> None:
    if not tokenizer.loses(text):
        return
    known = dict.fromkeys(text)
    lost = [sign for sign in known if not sign.isspace() and tokenizer.loses(sign)]
    at = text.find(lost[0]) if lost else 0
    found = f"{lost[0]!r} at offset {len(text[:at].encode())}" if lost else "some that it does not"
    todo = "take them out of the text, or use the tokenizer that the model was trained with"
    raise InputError(str(path), expected="characters that the tokenizer knows", found=found, todo=todo)


def _is_border(spans: Sequence[tuple[int, int]], at: int) -> bool:
    """Whether a character begins with the token."""
    return not 0 < at < len(spans) or spans[at][0] >= spans[at - 1][1]


def _next_border(spans: Sequence[tuple[int, int]], at: int) -> int:
    return next(place for place in range(at, len(spans) + 2) if _is_border(spans, place))


def _border_before(spans: Sequence[tuple[int, int]], at: int) -> int:
    return next(place for place in range(at, -1, -1) if _is_border(spans, place))


def _windows(ids: Sequence[int], first: int, prefix: tuple[int, ...], context: int, stride: int) -> Iterator[Window]:
    """Windows over all ids; those from `first` on are scored once each."""
    room, begin, done = context - len(prefix), 0, first
    while done < len(ids):
        end = min(begin + room, len(ids))
        if end > done:
            yield Window(np.array([*prefix, *ids[begin:end]], np.int64), end - done)
            done = end
        begin += stride
