"""Generation: prompt in, tokens out as they come, until a stop, a count or the end of the context."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from elastic_runtime.backend import Floats
from elastic_runtime.errors import InputError
from elastic_runtime.format.records import is_integer, show
from elastic_runtime.hold import Hold
from elastic_runtime.sampling import Sampler, Sampling
from elastic_runtime.session import Session
from elastic_runtime.text.tokenizer import StopText, Tokenizer

Finish = Literal["stop_token", "stop_text", "length", "context"]


@dataclass(frozen=True)
class Piece:
    """One generated token of a row.

    `text` is the text that became certain with this token, held-back text with the row's last one (empty without a
    tokenizer); `finish` says why the row ends here, None where it goes on. `id` is never None in what `generate`
    yields: a conversation writes a piece without one, the line break after an answer.
    """

    row: int
    id: int | None
    text: str
    finish: Finish | None


@dataclass(frozen=True)
class Settings:
    """How to generate. `stop_ids` are given out as pieces without text; stop texts are not given out at all."""

    max_new: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: tuple[int, ...] = ()
    stop_texts: tuple[str, ...] = ()


class _Row:
    """One sequence being generated."""

    def __init__(self, number: int, settings: Settings, tokenizer: Tokenizer | None) -> None:
        self._number, self._settings = number, settings
        self._sampler = Sampler(settings.sampling.row(number))
        self._stream = tokenizer.stream() if tokenizer else None
        self._stops = StopText(settings.stop_texts)
        self._count = 0

    def next(self, logits: Floats, room: int) -> Piece:
        """Sample a token for logits [V]; `room` tokens can still be fed after it."""
        token = self._sampler.sample(logits)
        self._count += 1
        if token in self._settings.stop_ids:
            return Piece(self._number, token, self._rest(), "stop_token")
        text, stopped = self._stops.push(self._stream.push(token)) if self._stream else ("", False)
        if stopped:
            return Piece(self._number, token, text, "stop_text")
        if self._count == self._settings.max_new or not room:
            ended: Finish = "length" if self._count == self._settings.max_new else "context"
            return Piece(self._number, token, text + self._rest(), ended)
        return Piece(self._number, token, text, None)

    def _rest(self) -> str:
        """Text that was held back and now is all there is; a stop may be whole in it."""
        if self._stream is None:
            return ""
        text, stopped = self._stops.push(self._stream.finish())
        return text if stopped else text + self._stops.finish()


def generate(
    session: Session,
    prompts: Sequence[Sequence[int]],
    settings: Settings | None = None,
    tokenizer: Tokenizer | None = None,
) -> Iterator[Piece]:
    """Feed one prompt a row after what the rows already hold, and yield tokens as they are sampled.

    The last token of a row was given out and not fed: it is pending (`Session.pending`), and the next prompt follows
    it. So does one after leaving the iterator, which stops the generation. An iterator raises InputError when anybody
    else has moved the session since, rather than go on from states that are not its own.

    Args:
        session: of as many rows as prompts.
        prompts: token ids.
        settings: how (greedy, 256 tokens).
        tokenizer: makes text of the tokens; stop texts need it.

    Raises:
        InputError: a prompt longer than the context, with ids that are no ids, or an empty one for a row that was
            never fed; nothing was fed then. An empty prompt otherwise goes on where the row was left. While iterating:
            the session was used in between.
    """
    settings = settings or Settings()
    _check(session, prompts, settings, tokenizer)
    rows: dict[int, _Row] = {n: _Row(n, settings, tokenizer) for n in range(len(prompts))}
    logits = _begin(session, prompts)
    return _run(session, logits, rows, session.hold())


def _begin(session: Session, prompts: Sequence[Sequence[int]]) -> Floats:
    """Logits [B, V] after each prompt; where there is none, after the pending token, else those of the last call."""
    left = {n: session.pending[n] for n, prompt in enumerate(prompts) if not len(prompt)}
    ids = [
        prompt if n not in left else [token] if (token := left[n]) is not None else []
        for n, prompt in enumerate(prompts)
    ]
    if not any(len(row) for row in ids):
        return session.logits
    try:
        for row in left:
            session.set_pending(row, None)  # it is the prompt now
        return session.prefill(ids)
    except InputError:
        for row, token in left.items():
            session.set_pending(row, token)
        raise


def _run(session: Session, logits: Floats, rows: dict[int, _Row], hold: Hold) -> Iterator[Piece]:
    try:
        while True:
            room = session.room
            for number, row in list(rows.items()):
                _check_hold(hold)
                piece = row.next(logits[number], room[number])
                session.set_pending(number, piece.id)
                if piece.finish is not None:
                    del rows[number]
                yield piece
            if not rows:
                return
            _check_hold(hold)
            logits = session.step(rows)
            hold.renew()
    finally:
        hold.end()


def _check_hold(hold: Hold) -> None:
    if not hold.lasts():
        raise InputError(
            "generation",
            expected="the session as it left it",
            found="one that was fed, reset or restored since, or on which another generation began",
            todo="finish one before the next, or open a session for each",
        )


def check_settings(settings: Settings, vocab_size: int, *, text: bool) -> None:
    """Whether a model of `vocab_size` ids can be asked for that: `generate` does it first, and who has yet to load the
    model can do it before.

    Args:
        settings: how to generate.
        vocab_size: of the model.
        text: whether there will be a tokenizer.

    Raises:
        InputError: naming the setting.
    """
    if not is_integer(settings.max_new) or settings.max_new < 1:
        raise InputError(
            "max_new", expected="at least 1", found=show(settings.max_new), todo="ask for one token or more"
        )
    if not isinstance(settings.stop_ids, Collection):
        todo = "put it into a tuple"
        raise InputError("stop tokens", expected="several ids", found=show(settings.stop_ids), todo=todo)
    for token in settings.stop_ids:
        if not is_integer(token) or not 0 <= token < vocab_size:
            expected = f"an id from 0 to {vocab_size - 1}"
            raise InputError(
                "stop token", expected=expected, found=show(token), todo="leave it out: this model never makes it"
            )
    if isinstance(settings.stop_texts, str):  # each of its letters would be one
        todo = "put it into a tuple"
        raise InputError("stop texts", expected="several texts", found=show(settings.stop_texts), todo=todo)
    if settings.stop_texts and not text:
        raise InputError(
            "stop texts",
            expected="a tokenizer, to compare texts",
            found="none",
            todo="pass the bundle's Tokenizer, or stop at ids",
        )
    StopText(settings.stop_texts)


def _check(session: Session, prompts: Sequence[Sequence[int]], settings: Settings, tokenizer: Tokenizer | None) -> None:
    check_settings(settings, session.backend.vocab_size, text=tokenizer is not None)
    if not prompts or not all(hasattr(prompt, "__len__") for prompt in prompts):
        todo = "give each row a list of ids, as in [[1, 2, 3]]"
        raise InputError("prompts", expected="a list of ids for every row", found=show(list(prompts)), todo=todo)
    for number, prompt in enumerate(prompts):
        fed = number < session.batch and (session.tokens[number] or session.pending[number] is not None)
        if not len(prompt) and not fed:
            where = "prompt" if len(prompts) == 1 else f"prompt {number}"
            todo = "begin with some text, or with the id that texts begin with"
            raise InputError(where, expected="at least one token", found="none", todo=todo)
