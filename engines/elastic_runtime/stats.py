"""What `--stats` says: time to the first token, tokens a second, memory, and the bound of the card's memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from elastic_runtime.errors import ElasticError
from elastic_runtime.fit import bandwidth_floor, gib
from elastic_runtime.generate import Piece
from elastic_runtime.manifest import BudgetEntry
from elastic_runtime.session import Session
from elastic_runtime.targets import load_targets


class Stopwatch:
    """Times of one generation; seconds."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.open_seconds = self.first_seconds = self.rest_seconds = 0.0
        self.tokens = 0

    def opened(self) -> None:
        """The session is open; the prompt begins."""
        now = time.perf_counter()
        self.open_seconds, self._start = now - self._start, now

    def counted(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """The same pieces, counted."""
        for piece in pieces:
            now = time.perf_counter()
            if not self.tokens:
                self.first_seconds, self._start = now - self._start, now
            self.tokens += 1
            self.rest_seconds = now - self._start
            yield piece

    @property
    def rate(self) -> float | None:
        """Tokens a second after the first one."""
        return (self.tokens - 1) / self.rest_seconds if self.tokens > 1 and self.rest_seconds > 0 else None


class _Opened(Protocol):
    budget: BudgetEntry | None


def report(watch: Stopwatch, session: Session, opener: _Opened, *, prompt: int) -> str:
    """A few lines for people."""
    held = session.backend.memory()
    rate = f"{watch.rate:.1f} tokens/s" if watch.rate else "-"
    lines = [
        f"backend        {session.backend.name}, budget {opener.budget.name if opener.budget else '-'}",
        f"open           {watch.open_seconds:.2f} s",
        f"first token    {watch.first_seconds * 1e3:.1f} ms for a prompt of {prompt}",
        f"then           {rate}, {watch.tokens} tokens",
        f"memory         {', '.join(f'{what} {gib(size)} GiB' for what, size in held.items())}",
    ]
    return "\n".join([*lines, *_floors(opener.budget, len(session.tokens[0]))])


def _floors(budget: BudgetEntry | None, context: int) -> list[str]:
    """The bandwidth floor of every card that the budget has an engine for."""
    lines = []
    for engine in budget.engines if budget else ():
        try:
            target = load_targets()[engine.target]
        except (KeyError, ElasticError):  # a target this version does not know
            continue
        floor = budget and bandwidth_floor(budget.size(engine), target, context=max(1, context))
        if floor:
            lines.append(f"card's bound   {target.display_name}: {floor:.0f} tokens/s by its memory bandwidth")
    return lines
