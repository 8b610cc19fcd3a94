"""Another budget under the same transcript, or the old one again where the new one fails."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from elastic_runtime.backend import Backend, Floats
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import BuildError
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.opening.candidates import Candidates
from elastic_runtime.opening.loading import Loader, closing_on_failure, session_on
from elastic_runtime.opening.places import Place, Places
from elastic_runtime.ort.open_onnx import OnnxCard
from elastic_runtime.session import Session


@dataclass(frozen=True)
class Switch:
    """What a change of budget cost: seconds to open the new one and to feed it `tokens` tokens again."""

    budget: str
    open_seconds: float
    prefill_seconds: float
    tokens: int


class LostError(BuildError):
    """A switch failed and the old budget did not open again: the session is closed."""


class Switching:
    """Switches sessions of one opener; arguments are its parts."""

    def __init__(self, places: Places, candidates: Candidates, loader: Loader) -> None:
        self._places, self._candidates, self._loader = places, candidates, loader

    def switch(
        self, session: Session, old: BudgetEntry | None, name: str
    ) -> tuple[BudgetEntry, Session, Floats, Switch]:
        """As `Opener.switch`; the budget that is open then comes first."""
        rows, start = [list(row) for row in session.tokens], time.perf_counter()
        at_least = max(map(len, rows)) + 1
        budget, place = self._settle(session, old, name, at_least)
        pending, old_place = session.pending, self._loader.place
        try:
            session.close()
            place = self._places.after_closing(place)
            budget, _, backend = self._loader.load(name, budget, place, at_least, len(rows), switching=True)
            opened = session_on(backend, len(rows))
            middle = time.perf_counter()
            logits = closing_on_failure(backend, lambda: _feed(opened, rows, pending))
        except Exception as error:
            self._loader.place = old_place
            self._restore(session, old, rows, pending, error)
            raise
        cost = Switch(budget.name, middle - start, time.perf_counter() - middle, sum(map(len, rows)))
        return budget, opened, logits, cost

    def _settle(self, session: Session, old: BudgetEntry | None, name: str, at_least: int) -> tuple[BudgetEntry, Place]:
        """Budget and place of the new session, checked with what the old one will give back. Raises BuildError."""
        found = self._places.find(quiet=True) if old is None else self._places.again(self._loader.place)
        if isinstance(found, OnnxCard):
            found = self._places.with_what_returns(found, session.backend)
        then = replace(found, free=found.free + _held(session)) if isinstance(found, Card) else found
        budget, place = self._candidates.settle(name, then, at_least, session.batch, switching=True)
        place = found if isinstance(found, Card) else place  # `check` counts what is given back once more
        returns = isinstance(place, Card) or session.backend.device == "cpu"
        held = _held(session) if returns else 0
        self._candidates.check(budget, place, held=held, rows=session.batch, at_least=at_least)
        return budget, place

    def _restore(
        self,
        session: Session,
        old: BudgetEntry | None,
        rows: list[list[int]],
        pending: Sequence[int | None],
        reason: Exception,
    ) -> None:
        """Open the old budget again under its session. Raises LostError."""
        try:
            if old is None:
                todo = "switch it with the opener that opened it"
                raise BuildError("session", expected="one of this opener", found="another", todo=todo)
            place = self._places.after_closing(self._loader.place)
            at_least = max(map(len, rows)) + 1
            backend = self._loader.again(old, place, at_least, len(rows))
            closing_on_failure(backend, lambda: _feed_again(session, backend, rows, pending))
        except Exception as error:
            todo = f"open the bundle again; the switch failed of: {reason}"
            expected = f"budget {old.name!r} to open again" if old else "the old budget to open again"
            raise LostError("switch of budgets", expected=expected, found=str(error), todo=todo) from error


def _held(session: Session) -> int:
    return sum(session.backend.memory().values())


def _feed(session: Session, rows: Sequence[Sequence[int]], pending: Sequence[int | None]) -> Floats:
    """Give a new session the transcript of another -> logits [B, V]; zeros where there is none yet."""
    nothing = np.zeros((len(rows), session.backend.vocab_size), np.float32)
    logits = session.prefill(rows) if any(rows) else nothing
    for row, token in enumerate(pending):
        session.set_pending(row, token)
    return logits


def _feed_again(
    session: Session, backend: Backend, rows: Sequence[Sequence[int]], pending: Sequence[int | None]
) -> None:
    """Give a session a new backend, and its own transcript."""
    session.reopen(backend, len(rows))
    _feed(session, rows, pending)
