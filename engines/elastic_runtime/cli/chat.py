"""A conversation on a terminal: a line a turn, every turn through the chat template, budgets switched on the way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, current_thread, main_thread
from types import FrameType
from typing import Any

from elastic_runtime.cli.stats import Stopwatch, cut_note, report
from elastic_runtime.cli.turns import HELP, are_typed, turns
from elastic_runtime.errors import ElasticError
from elastic_runtime.generation import Piece, Settings, generate
from elastic_runtime.opening import LostError, Opener
from elastic_runtime.prefix import Prefix, lasting
from elastic_runtime.session import Session
from elastic_runtime.text.reasoning import begins_reasoning, split_reasoning
from elastic_runtime.text.tokenizer import Message, Tokenizer

_SWITCH, _HELP = "/budget", "/help"


@dataclass(frozen=True)
class Speech:
    """How a conversation is held: whose tokenizer, how answers are generated, and what the chat template is given.

    `arguments` are the template's own, such as `enable_thinking`.
    """

    tokenizer: Tokenizer
    settings: Settings
    system: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def begin(self) -> list[Message]:
        """The messages before the first turn."""
        return [] if self.system is None else [{"role": "system", "content": self.system}]


def converse(
    opener: Opener,
    speech: Speech,
    *,
    say: Callable[[str], None],
    write: Callable[[Piece], None],
    stats: bool = False,
) -> int:
    """Read turns from standard input until it ends. An error of one turn is said, and the conversation goes on; Ctrl-C
    ends an answer, and where turns are not typed it ends the conversation between answers.

    Args:
        opener: of the bundle.
        speech: how it is held.
        say: hears of errors, switches, cut answers and statistics.
        write: gets the answers.
        stats: whether to say how fast each answer came.

    Returns:
        0, or the exit code of the last error where there were errors and not one answer.

    Raises:
        InputError: the chat template does not take the system prompt or an argument; nothing was loaded then.
    """
    trial: list[Message] = [*speech.begin(), {"role": "user", "content": "Hello"}]
    speech.tokenizer.render(trial, arguments=speech.arguments)  # before a model is loaded for nothing
    chat = _Chat(opener, speech, say, write, stats)
    try:
        if are_typed():
            say(f"{chat.where}: type a turn and Enter; /help says what else")
        for line in turns():
            chat.turn(line)
    finally:
        if not chat.lost:
            chat.session.close()
    return 0 if chat.answered else chat.code


class _Chat:
    """A conversation: what was said, and the session that holds it."""

    def __init__(
        self,
        opener: Opener,
        speech: Speech,
        say: Callable[[str], None],
        write: Callable[[Piece], None],
        stats: bool,
    ) -> None:
        self._opener, self._speech = opener, speech
        self._say, self._write, self._stats = say, write, stats
        self.messages = speech.begin()
        self.code, self.lost, self.answered = 0, False, False
        watch = Stopwatch()
        self.session: Session = opener.open()
        self._prefix = Prefix(self.session)
        watch.opened()
        self._open_seconds = watch.open_seconds  # said once, with the first answer

    @property
    def where(self) -> str:
        """The budget and what runs it, for people."""
        budget = self._opener.budget
        return f"budget {budget.name if budget else '-'} on {self.session.backend.name}"

    def turn(self, line: str) -> None:
        """One line. Raises LostError where no session is left."""
        try:
            if line.split(maxsplit=1)[:1] == [_SWITCH]:
                self._switch(line.removeprefix(_SWITCH).strip())
            elif line.strip() == _HELP:
                self._say(HELP)
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

        What the session or its copy already holds is not fed again where the template gives the same ids again.
        """
        turns: list[Message] = [*self.messages, {"role": "user", "content": text}]
        speech, session = self._speech, self.session
        prompt = speech.tokenizer.render(turns, arguments=speech.arguments)
        ids = speech.tokenizer.encode(prompt, special=False)
        answer, finish = list[str](), None
        watch = Stopwatch()  # of this turn: one that failed leaves nothing in it
        watch.open_seconds = self._open_seconds
        with interruptible() as asked_to_stop:  # from here on: a long prompt is where people lose patience first
            fed = self._prefix.advance(ids, lasting(speech.tokenizer, turns, ids, speech.arguments))
            for piece in watch.counted(generate(session, [fed], speech.settings, speech.tokenizer)):
                self._write(piece)
                answer.append(piece.text)
                finish = piece.finish
                if asked_to_stop.is_set():
                    break
        self._write(Piece(0, None, "\n", None))
        if note := cut_note(finish, speech.settings, session):
            self._say(note)
        reasoning, said = split_reasoning("".join(answer), begun=begins_reasoning(prompt))
        thoughts = {"reasoning_content": reasoning} if reasoning else {}
        self.messages, self.answered = [*turns, {"role": "assistant", "content": said, **thoughts}], True
        if self._stats:
            self._say(report(watch, session, self._opener.budget, prompt=self._prefix.fed + len(fed)))
        self._open_seconds = 0.0

    def _switch(self, name: str) -> None:
        self.session, _, cost = self._opener.switch(self.session, name)
        self._prefix = Prefix(self.session)
        self._say(
            f"{cost.budget}: opened in {cost.open_seconds:.2f} s, "
            f"{cost.tokens} tokens fed again in {cost.prefill_seconds:.2f} s"
        )


@contextmanager
def interruptible() -> Iterator[Event]:
    """Ctrl-C sets the event instead of ending the program, once: between two tokens a session is whole. A second one
    interrupts as ever.
    """
    asked = Event()
    if current_thread() is not main_thread():  # signals are the main thread's
        yield asked
        return

    def stop(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
