"""A conversation on a terminal: a line a turn, every turn through the chat template, budgets switched on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable

from elastic_runtime.errors import InputError
from elastic_runtime.generate import Piece, Settings, generate
from elastic_runtime.open import Opener
from elastic_runtime.session import Session
from elastic_runtime.tokenizer import Message, Tokenizer

_SWITCH = "/budget"


def converse(
    opener: Opener,
    tokenizer: Tokenizer,
    settings: Settings,
    *,
    say: Callable[[str], None],
    write: Callable[[Piece], None],
) -> None:
    """Read turns from standard input until it ends."""
    messages: list[Message] = []
    session = opener.open()
    try:
        for line in sys.stdin:
            text = line.rstrip("\n")
            if text.startswith(_SWITCH):
                session = _switch(opener, session, text.removeprefix(_SWITCH).strip(), say)
            elif text:
                messages.append({"role": "user", "content": text})
                answer = _answer(session, tokenizer, settings, messages, write)
                messages.append({"role": "assistant", "content": answer})
    except UnicodeDecodeError as error:
        raise InputError("standard input", expected="UTF-8", found=f"an invalid byte at {error.start}") from None
    finally:
        session.close()


def _answer(
    session: Session,
    tokenizer: Tokenizer,
    settings: Settings,
    messages: list[Message],
    write: Callable[[Piece], None],
) -> str:
    """One turn. What the session already holds is fed only where the template gives the same ids again."""
    ids = tokenizer.chat(messages)
    held = session.tokens[0]
    session.set_pending(0, None)  # the template gives the answer's last token again, or ends the turn otherwise
    if not (held and len(held) < len(ids) and ids[: len(held)] == held):
        session.reset()
        held = []
    text = []
    for piece in generate(session, [ids[len(held) :]], settings, tokenizer):
        write(piece)
        text.append(piece.text)
    write(Piece(0, None, "\n", None))
    return "".join(text)


def _switch(opener: Opener, session: Session, name: str, say: Callable[[str], None]) -> Session:
    try:
        opener.bundle.budget(name)
    except InputError as error:
        say(f"error: {error}")
        return session
    if not session.tokens[0]:
        session.close()
        return opener.open(name)
    session, _, cost = opener.switch(session, name)
    say(
        f"{cost.budget}: opened in {cost.open_seconds:.2f} s, "
        f"{cost.tokens} tokens fed again in {cost.prefill_seconds:.2f} s"
    )
    return session
