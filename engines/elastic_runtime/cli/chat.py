"""A conversation on a terminal: a line a turn, every turn through the chat template, budgets switched on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from elastic_runtime.cli.stats import Stopwatch, report
from elastic_runtime.errors import ElasticError, InputError
from elastic_runtime.generation import Piece, Settings, generate
from elastic_runtime.opening import LostError, Opener
from elastic_runtime.session import Session
from elastic_runtime.text.tokenizer import Message, Tokenizer

_SWITCH = "/budget"


def converse(
    opener: Opener,
    tokenizer: Tokenizer,
    settings: Settings,
    *,
    say: Callable[[str], None],
    write: Callable[[Piece], None],
    stats: bool = False,
) -> int:
    """Read turns from standard input until it ends. An error of one turn is said, and the conversation goes on.

    Args:
        opener: of the bundle.
        tokenizer: the bundle's.
        settings: of every answer.
        say: hears of errors, switches and statistics.
        write: gets the answers.
        stats: whether to say how fast each answer came.

    Returns:
        0, or the exit code of the last error where there were errors and not one answer.
    """
    chat = _Chat(opener, tokenizer, settings, say, write, stats)
    try:
        for line in _lines():
            chat.turn(line)
    finally:
        if not chat.lost:
            chat.session.close()
    return 0 if chat.messages else chat.code


class _Chat:
    """A conversation: what was said, and the session that holds it."""

    def __init__(
        self,
        opener: Opener,
        tokenizer: Tokenizer,
        settings: Settings,
        say: Callable[[str], None],
        write: Callable[[Piece], None],
        stats: bool,
    ) -> None:
        self._opener, self._tokenizer, self._settings = opener, tokenizer, settings
        self._say, self._write, self._stats = say, write, stats
        self.messages: list[Message] = []
        self.code, self.lost = 0, False
        watch = Stopwatch()
        self.session: Session = opener.open()
        watch.opened()
        self._open_seconds = watch.open_seconds  # said once, with the first answer

    def turn(self, line: str) -> None:
        """One line. Raises LostError where no session is left."""
        try:
            if line.startswith(_SWITCH):
                self._switch(line.removeprefix(_SWITCH).strip())
            elif line:
                self._answer(line)
        except LostError:
            self.lost = True
            raise
        except ElasticError as error:
            self._say(f"error: {error}")
            self.code = error.exit_code

    def _answer(self, text: str) -> None:
        """One answer; a turn that fails is not part of the conversation.

        What the session already holds is fed only where the template gives the same ids again.
        """
        turns: list[Message] = [*self.messages, {"role": "user", "content": text}]
        ids, session = self._tokenizer.chat(turns), self.session
        session.set_pending(0, None)  # the template gives the answer's last token again, or ends the turn otherwise
        held = session.tokens[0]
        if not (held and len(held) < len(ids) and ids[: len(held)] == held):
            session.reset()
            held = []
        fed, answer = ids[len(held) :], list[str]()
        watch = Stopwatch()  # of this turn: one that failed leaves nothing in it
        watch.open_seconds = self._open_seconds
        for piece in watch.counted(generate(session, [fed], self._settings, self._tokenizer)):
            self._write(piece)
            answer.append(piece.text)
        self._write(Piece(0, None, "\n", None))
        self.messages = [*turns, {"role": "assistant", "content": "".join(answer)}]
        if self._stats:
            self._say(report(watch, session, self._opener.budget, prompt=len(fed)))
        self._open_seconds = 0.0

    def _switch(self, name: str) -> None:
        self.session, _, cost = self._opener.switch(self.session, name)
        self._say(
            f"{cost.budget}: opened in {cost.open_seconds:.2f} s, "
            f"{cost.tokens} tokens fed again in {cost.prefill_seconds:.2f} s"
        )


def _lines() -> Iterator[str]:
    """Standard input, line by line. Raises InputError where it is closed or no UTF-8."""
    if sys.stdin is None:
        raise InputError(
            "standard input", expected="an open one", found="a closed one", todo="redirect a file to it, as in < FILE"
        )
    try:
        while line := sys.stdin.readline():
            yield line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            "standard input",
            expected="UTF-8",
            found=f"an invalid byte at {error.start}",
            todo="convert it, as with iconv -t UTF-8",
        ) from None
