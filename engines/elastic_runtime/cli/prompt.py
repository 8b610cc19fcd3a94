"""The prompt of the command line, and standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TextIO

from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.ort.open_onnx import contexts_of
from elastic_runtime.session_request import Request
from elastic_runtime.text.tokenizer import Tokenizer


def standard_input() -> TextIO:
    """The stream. Raises InputError where it is closed."""
    if sys.stdin is None:
        raise InputError(
            "standard input", expected="an open one", found="a closed one", todo="redirect a file to it, as in < FILE"
        )
    return sys.stdin


def not_utf8(error: UnicodeDecodeError) -> InputError:
    """The user's error for standard input that is no UTF-8."""
    return InputError(
        "standard input",
        expected="UTF-8",
        found=f"an invalid byte at {error.start}",
        todo="convert it, as with iconv -t UTF-8",
    )


def prompt_ids(options: dict[str, Any], tokenizer: Tokenizer | None) -> Sequence[int]:
    """The ids of --prompt, of standard input where it is `-`, or of --ids, which go without a tokenizer.

    Raises:
        InputError: no ids, or a text that is no UTF-8.
    """
    if tokenizer is None:
        try:
            return [int(part) for part in options["ids"].split(",")]
        except ValueError:
            raise InputError(
                "--ids",
                expected="integers divided by commas",
                found=options["ids"][:60],
                todo="write them as in --ids 1,2,3",
            ) from None
    return tokenizer.encode(_whole_input() if options["prompt"] == "-" else options["prompt"])


def check_prompt(ids: Sequence[int], vocab_size: int, context: int) -> None:
    """What a session of so many tokens would say of a prompt, before there is one. Raises InputError."""
    for token in ids:
        if not 0 <= token < vocab_size:
            todo = "encode the text with the tokenizer of this bundle"
            raise InputError("token ids", expected=f"0 to {vocab_size - 1}", found=f"{token}"[:60], todo=todo)
    if not ids:
        todo = "begin with some text, or with the id that texts begin with"
        raise InputError("prompt", expected="at least one token", found="none", todo=todo)
    if 1 <= context < len(ids):
        expected, todo = (
            f"at most {context} tokens, the context",
            "shorten it, or open the bundle with a larger context",
        )
        raise InputError("prompt", expected=expected, found=f"{len(ids)}", todo=todo)


def longest_context(bundle: Bundle, request: Request) -> int:
    """Tokens of the longest context that a session of the request can have, whatever fits here. Raises InputError."""
    return max(contexts_of(budget, request.context)[0] for budget in bundle.forms(request.budget))


def _whole_input() -> str:
    data = standard_input().buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error) from None
