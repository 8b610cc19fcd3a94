"""Text to ids and back: the bundle's tokenizer.json, its chat template and its end-of-text ids.

Needs the `tokenizers` package; chat templates need `jinja2`. What transformers makes of the same files is the
reference, whole and token by token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.records import is_integer, show
from elastic_runtime.text.eos import stop_ids
from elastic_runtime.text.special_tokens import TokenizerFiles
from elastic_runtime.text.stream import StopText, TextStream, clean_up, decoder_of

__all__ = ["Message", "StopText", "TextStream", "Tokenizer"]

Message = Mapping[str, Any]
#: What a template is given besides its arguments, by parameters of `Tokenizer.render`.
_FILLED = {"messages", "tools"}


class Tokenizer:
    """A bundle's tokenizer. Raises InputError where the bundle has none, BuildError without `tokenizers`."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)
        path = self._folder / "tokenizer.json"
        if not path.is_file():
            raise InputError(str(path), expected="the bundle's tokenizer", found="no such file", todo="feed token ids")
        self._files = TokenizerFiles.read(self._folder)
        self._tokenizer = _load(path, self._files)
        self._special = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}

    @property
    def size(self) -> int:
        """Ids it knows."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of a text, never cut short nor padded; `special` lets the tokenizer add what it begins a text with.

        Raises:
            InputError: what is no text or no Unicode (a lone surrogate, as invalid UTF-8 of a command line becomes), or
                text that the tokenizer fails on.
        """
        if not isinstance(text, str):
            raise InputError("prompt", expected="text", found=show(text), todo="give it as a str")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                "prompt",
                expected="valid UTF-8",
                found=f"an invalid byte at {error.start}",
                todo="give the text in UTF-8",
            ) from None
        return list(self._encoded(text, special=special).ids)

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text, nothing added, and which characters [start, end) of it each is; several ids may be one
        character. Where characters are left out silently (`loses`), what follows them is told too early.
        """
        processor, self._tokenizer.post_processor = self._tokenizer.post_processor, None
        try:  # it might trim blanks from the spans that the ids do have
            found = self._encoded(text, special=False)
        finally:
            self._tokenizer.post_processor = processor
        return list(found.ids), list(found.offsets)

    def _encoded(self, text: str, *, special: bool) -> Any:
        with self._answers():
            return self._tokenizer.encode(text, add_special_tokens=special)

    def loses(self, text: str) -> bool:
        """Whether a part of a text has no id, or the one of everything unknown."""
        ids, spans = self.spans(text)
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        lost = unknown is not None and self._tokenizer.token_to_id(unknown) in ids
        return lost or bool(text[spans[-1][1] if spans else 0 :].strip())

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD, special tokens are left out unless asked for.

        Raises:
            InputError: an id that is no integer, below 0 or beyond 32 bits, or ids that the tokenizer fails on.
        """
        for token in ids:
            if not is_integer(token) or not 0 <= token < 1 << 32:
                raise InputError(
                    "token ids", expected="0 or more, of 32 bits", found=show(token), todo="give ids of this tokenizer"
                )
        with self._answers():
            text = str(self._tokenizer.decode(list(ids), skip_special_tokens=not special))
        return clean_up(text) if self.cleans_up else text

    def stream(self) -> TextStream:
        """A decoder of one sequence, token by token."""
        return TextStream(self)

    def raw(self, ids: Sequence[int]) -> str:
        """The text of ids before spaces are cleaned up (`stream.Decodes`)."""
        with self._answers():
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def token(self, token: int) -> str | None:
        """A token as it stands in the vocabulary; None for a special one, and for an id without one."""
        found = None if token in self._special else self._tokenizer.id_to_token(token)
        return None if found is None else str(found)

    @cached_property
    def decoder(self) -> Mapping[str, Any]:
        """The decoder's description, empty where there is none."""
        decoder = self._tokenizer.decoder
        return decoder_of(decoder.__getstate__() if decoder is not None else None)

    @cached_property
    def cleans_up(self) -> bool:
        """Whether spaces before punctuation are removed: by the config; after byte pairs only where it insists."""
        config = self._files.config
        forced = config.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
        wanted = bool(config.get("clean_up_tokenization_spaces", False))
        return wanted and (type(self._tokenizer.model).__name__ != "BPE" or bool(forced))

    def stop_ids(self, vocab_size: int | None = None) -> tuple[int, ...]:
        """Ids that end a text (`eos.stop_ids`), in a vocabulary of that size."""
        return stop_ids(self._folder, vocab_size, id_of=self._tokenizer.token_to_id)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The ids of a conversation that the assistant is to continue: see `render`."""
        return self.encode(self.render(messages, tools=tools, arguments=arguments), special=False)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a conversation that the assistant is to continue, by the chat template: see `conversation`."""
        found = self.conversation(messages, tools=tools, arguments=arguments)
        return str(_templates().render(**found))

    def conversation(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """What `chat_template.render` takes of a conversation that the assistant is to continue.

        Args:
            messages: `role` and `content` of each turn, and what else the template reads (`reasoning_content`).
            tools: JSON schemas of functions.
            arguments: the template's own, such as `enable_thinking`.

        Raises:
            InputError: the bundle has no template, or an argument has the name of another parameter; of `render`
                besides, the template refuses the messages.
        """
        template = self._template(tools=bool(tools))
        if template is None:
            raise InputError(
                "chat", expected="a chat template in tokenizer_config.json", found="none", todo="use --prompt"
            )
        given = dict(arguments or {})
        for name in _FILLED & given.keys():
            todo = "leave it out: the conversation gives it"
            raise InputError(name, expected="an argument of the template's own", found="one that is taken", todo=todo)
        values = {**self._files.special, "add_generation_prompt": True, "tools": tools, "documents": None, **given}
        return {"template": template, "messages": list(messages), "values": values}

    @property
    def has_template(self) -> bool:
        """Whether `render` has a template for a conversation without tools. Raises InputError about a file of one."""
        return self._template(tools=False) is not None

    @property
    def has_tool_template(self) -> bool:
        """Whether a conversation with tools has a template of its own. Raises InputError about a file of one."""
        return self._template(tools=True) not in (None, self._template(tools=False))

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Around calls of the library, which raises bare Exception, or panics, where a tokenizer makes no sense for a
        text. Raises InputError then.
        """
        try:
            yield
        except BaseException as error:
            if type(error) is not Exception and type(error).__module__ != "pyo3_runtime":
                raise
            raise InputError(
                str(self._folder / "tokenizer.json"),
                expected="a tokenizer that encodes and decodes",
                found=f"{type(error).__name__}: {error}",
                todo="correct it in the checkpoint and export again; token ids need none",
            ) from error

    def _template(self, *, tools: bool) -> str | None:
        found: str | None = _templates().find_template(self._folder, self._files.config, tools=tools)
        return found


def _load(path: Path, files: TokenizerFiles) -> Any:
    try:
        import tokenizers  # noqa: PLC0415  # token ids go without
    except ImportError as error:
        raise _missing("tokenizers", error) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InputError(
            str(path),
            expected="a tokenizer of the tokenizers library",
            found=str(error),
            todo="pip install -U tokenizers, or correct it in the checkpoint and export again",
        ) from error
    # How its maker's batches were cut and filled up is no part of what a text's ids are.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = bool(files.config.get("split_special_tokens", False))
    tokenizer.add_tokens([tokenizers.AddedToken(token.content, **token.options()) for token in files.added])
    return tokenizer


def _templates() -> Any:
    try:
        return import_module("elastic_runtime.text.chat_template")  # ids go without
    except ImportError as error:
        raise _missing("jinja2", error) from error


def _missing(package: str, error: ImportError) -> BuildError:
    return BuildError(
        f"the package {package}",
        expected="it to be installed",
        found=str(error),
        todo=f"pip install {package}",
    )
