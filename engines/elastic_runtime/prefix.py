"""A session that is given whole prompts, and fed only what is new of them.

A recurrent state cannot be cut back to an earlier token: who wants to go back must have kept a copy. Templates of
reasoning models drop the thoughts of earlier answers, so the prompt of every turn parts from what the session holds
where the last answer began; a copy is kept there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from elastic_runtime.backend import DeviceName
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.session import Session
from elastic_runtime.snapshot import Snapshot
from elastic_runtime.text.tokenizer import Message, Tokenizer


class Prefix:
    """What one sequence's prompts have in common, as states of a session of one row; the session stays its owner's.

    Args:
        session: of one row.
        device: where the copy lies, in main memory unless told otherwise: a card is filled by the choice of a context.
    """

    def __init__(self, session: Session, *, device: DeviceName | None = "cpu") -> None:
        self._session, self._device = session, device
        self._kept: Snapshot | None = None
        self.fed = 0  # by the last `advance`, what it returned not counted

    def advance(self, ids: Sequence[int], keep: int = 0) -> list[int]:
        """Bring the session to where it holds as much of a prompt as it can without being fed what it was fed before.

        Args:
            ids: the whole prompt.
            keep: how many of them the next prompt will begin with, as far as is known: they are fed, and a copy of the
                session is kept behind them, in place of the one before. Where it holds them already, or a card has no
                room for the copy, nothing is kept.

        Returns:
            The ids that are left to feed, at least one.

        Raises:
            InputError: ids that are none, or more than the context takes; as `Session.prefill`.
        """
        ids, session = list(ids), self._session
        session.set_pending(0, None)  # a prompt says all of the sequence, what was given out and not fed too
        held, keep = self._reached(ids), min(keep, len(ids) - 1)
        self.fed = keep - held if held < keep and len(ids) <= session.backend.max_context else 0
        if self.fed:
            session.prefill([ids[held:keep]])
            self._keep()
        return ids[held + self.fed :]

    def _reached(self, ids: list[int]) -> int:
        """How many ids the session holds, after it has gone back to the copy, or to the beginning, where it must."""
        if self._session.whole and _begins(ids, self._session.tokens[0]):
            return len(self._session.tokens[0])
        if self._kept is not None and _begins(ids, self._kept.tokens[0]):
            with suppress(InputError, BuildError):  # the session runs another budget since, or the card is full
                self._session.restore(self._kept)
                return len(self._kept.tokens[0])
        self._session.reset()
        return 0

    def _keep(self) -> None:
        if self._kept is not None:
            self._kept.close()  # before there are two
            self._kept = None
        with suppress(BuildError):  # a full card; it costs the next prompt some tokens, which is no reason to stop
            self._kept = self._session.snapshot(device=self._device)


def lasting(
    tokenizer: Tokenizer, turns: Sequence[Message], ids: Sequence[int], arguments: Mapping[str, Any] | None = None
) -> int:
    """How many ids of the prompt of a conversation the next prompt begins with, whatever the answer to it will be.

    The template is asked for the next prompt, with an answer and a turn in the place of those to come. 0 where it
    refuses them.
    """
    to_come: list[Message] = [{"role": "assistant", "content": "A"}, {"role": "user", "content": "B"}]
    try:
        text = tokenizer.render([*turns, *to_come], arguments=arguments)
    except InputError:
        return 0
    return common(ids, tokenizer.encode(text, special=False))


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids two sequences begin with alike."""
    pairs = zip(first, second, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _begins(ids: Sequence[int], held: Sequence[int]) -> bool:
    """Whether something follows what is held."""
    return 0 < len(held) < len(ids) and common(ids, held) == len(held)
