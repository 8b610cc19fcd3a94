"""A generation's claim to the session that it runs on."""

from __future__ import annotations

from typing import Protocol


class Held(Protocol):
    """What a claim asks of a session."""

    @property
    def moves(self) -> int:
        """A number that changes whenever the states do."""

    def holds(self, hold: Hold) -> bool:
        """Whether that generation is the last that began."""


class Hold:
    """One generation's claim that a session stands where it left it. It ends when anybody else moves the session, with
    the next generation on it, and with the last reference.
    """

    def __init__(self, session: Held) -> None:
        self._session, self._moves = session, session.moves

    def renew(self) -> None:
        """After a step of one's own."""
        self._moves = self._session.moves

    def end(self) -> None:
        """The generation is over, whoever still refers to it."""
        self._moves = -1

    def lasts(self) -> bool:
        """Whether nobody has come between."""
        return self._session.holds(self) and self._moves == self._session.moves
