"""Text to ids and back: the bundle's tokenizer.json, its chat template and its end-of-text ids.

Needs the `tokenizers` package; chat templates need `jinja2`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.text.eos import content_of, optional_json, stop_ids

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
Message = Mapping[str, str]


class Tokenizer:
    """A bundle's tokenizer. Raises InputError where the bundle has none, BuildError without `tokenizers`."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise InputError(str(path), expected="the bundle's tokenizer", found="no such file", todo="feed token ids")
        try:
            import tokenizers  # noqa: PLC0415  # token ids go without
        except ImportError as error:
            raise _missing("tokenizers", error) from error
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise InputError(
                str(path),
                expected="a tokenizer of the tokenizers library",
                found=str(error),
                todo="pip install -U tokenizers, or correct it in the checkpoint and export again",
            ) from error
        self._folder = folder
        self._config = optional_json(folder / "tokenizer_config.json")

    @property
    def size(self) -> int:
        """Ids it knows."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of a text; `special` lets the tokenizer add what it begins a text with.

        Raises:
            InputError: text that is no Unicode (a lone surrogate, as invalid UTF-8 of a command line becomes).
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                "prompt",
                expected="valid UTF-8",
                found=f"an invalid byte at {error.start}",
                todo="give the text in UTF-8",
            ) from None
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD, special tokens are left out unless asked for."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=not special))

    def stream(self) -> TextStream:
        """A decoder of one sequence, token by token."""
        return TextStream(self)

    def stop_ids(self, vocab_size: int | None = None) -> tuple[int, ...]:
        """Ids that end a text (`eos.stop_ids`), in a vocabulary of that size."""
        return stop_ids(self._folder, vocab_size, id_of=self._tokenizer.token_to_id)

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation that the assistant is to continue, through the chat template.

        Args:
            messages: `role` and `content` of each turn.

        Raises:
            InputError: the bundle has no template, or it refuses the messages.
        """
        return self.encode(self._render(self._template(), messages), special=False)

    def _template(self) -> str:
        path = self._folder / "chat_template.jinja"
        if path.is_file():
            try:
                return path.read_text("utf-8")
            except UnicodeDecodeError as error:
                where = f"an invalid byte at {error.start}"
                raise InputError(
                    str(path), expected="UTF-8", found=where, todo="correct it in the checkpoint and export again"
                ) from None
        found = self._config.get("chat_template")
        if isinstance(found, list):  # several by name
            named = [t for t in found if isinstance(t, dict) and t.get("name") == "default"]
            found = named[0].get("template") if named else None
        if not isinstance(found, str):
            raise InputError(
                "chat", expected="a chat template in tokenizer_config.json", found="none", todo="use --prompt"
            )
        return found

    def _render(self, template: str, messages: Sequence[Message]) -> str:
        try:
            from jinja2.exceptions import TemplateError  # noqa: PLC0415

            from elastic_runtime.text.chat_template import template_environment  # noqa: PLC0415
        except ImportError as error:
            raise _missing("jinja2", error) from error
        environment = template_environment()
        marks = {name: content_of(self._config.get(name)) for name in ("bos_token", "eos_token", "pad_token")}
        try:
            return environment.from_string(template).render(messages=messages, add_generation_prompt=True, **marks)
        except Exception as error:  # a template computes: it may divide by zero or count beyond all bounds
            found = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
            raise InputError(
                "chat template",
                expected="a template that takes the messages",
                found=found,
                todo="use --prompt, or correct the template in the checkpoint and export again",
            ) from error


class TextStream:
    """Decodes a growing sequence so that what was given out never changes and no character is cut in two.

    A character may take several tokens. Until it is whole, the text ends with one U+FFFD, which is held back.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []  # from a character's beginning on; before it, what the decoder needs to see
        self._context = 0
        self._given = 0  # characters of the new ids that were given out

    def push(self, token: int) -> str:
        """The text that is certain after one more token; may be empty."""
        self._ids.append(token)
        text = self._new_text()
        piece = text[self._given :].removesuffix(_UNKNOWN)
        self._given += len(piece)
        if not text.endswith(_UNKNOWN):
            self._ids, self._given = self._ids[self._context :], 0
            self._context = len(self._ids)
        return piece

    def finish(self) -> str:
        """What was held back: an incomplete character stays U+FFFD."""
        piece = self._new_text()[self._given :]
        self._ids, self._context, self._given = [], 0, 0
        return piece

    def _new_text(self) -> str:
        before = self._tokenizer.decode(self._ids[: self._context])
        return self._tokenizer.decode(self._ids)[len(before) :]


class StopText:
    """Passes text on until one of `stops` appears in it; text that may become one is held back."""

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        if not all(self._stops):
            raise InputError(
                "stop", expected="texts of at least one character", found="an empty one", todo="leave it out"
            )
        self._held = ""

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


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper beginning of `stop` that `text` ends with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _missing(package: str, error: ImportError) -> BuildError:
    return BuildError(
        f"the package {package}",
        expected="it to be installed",
        found=str(error),
        todo=f"pip install {package}",
    )
