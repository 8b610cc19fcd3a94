"""What `--stats` says: time to the first token, tokens a second, memory, and the bound of the card's memory."""

from __future__ import annotations

import time
from collections.abc import Iterator

from elastic_runtime.backend import Backend
from elastic_runtime.driver.free_memory import find_card, resident
from elastic_runtime.fit.targets import load_targets
from elastic_runtime.fit.vram import bandwidth_floor, gib
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.generation import Finish, Piece, Settings
from elastic_runtime.session import Session


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


def report(watch: Stopwatch, session: Session, budget: BudgetEntry | None, *, prompt: int) -> str:
    """A few lines for people about one generation after a prompt of so many tokens."""
    held = session.backend.memory()
    rate = f"{watch.rate:.1f} tokens/s" if watch.rate else "-"
    opened = [f"open           {watch.open_seconds:.2f} s"] if watch.open_seconds else []
    lines = [
        f"backend        {_where(session.backend)}, budget {budget.name if budget else '-'}",
        *opened,
        f"first token    {watch.first_seconds * 1e3:.1f} ms for a prompt of {prompt}",
        f"then           {rate}, {watch.tokens} tokens",
        f"memory         {', '.join(f'{what} {gib(size)} GiB' for what, size in held.items())}",
        *_graphs(session.backend),
        *_taken(session.backend),
    ]
    return "\n".join([*lines, *_floors(budget, len(session.tokens[0]))])


def cut_note(finish: Finish | None, settings: Settings, session: Session) -> str:
    """What is said of an answer that did not come to its end; empty of another."""
    if finish == "length":
        return f"cut after {settings.max_new} tokens; --max-new allows more"
    if finish == "context":
        return f"cut at the end of the context of {session.backend.max_context} tokens; --context allows more"
    return ""


def _where(backend: Backend) -> str:
    """The backend's name; onnxruntime's with the card, where it runs on one, for an engine is never elsewhere."""
    return f"{backend.name} on the card" if backend.name == "onnxruntime" and backend.device == "gpu" else backend.name


def _graphs(backend: Backend) -> list[str]:
    """Whether decode steps run as CUDA graphs, which onnxruntime is not asked for."""
    from elastic_runtime.tensorrt.backend_tensorrt import EngineBackend  # noqa: PLC0415

    return [f"CUDA graphs    {backend.graphs}"] if isinstance(backend, EngineBackend) else []


def _taken(backend: Backend) -> list[str]:
    """What the system says is taken: by this process, and of the card where one is used."""
    lines = [f"process        {gib(resident())} GiB resident, mapped files included"]
    found = find_card() if backend.device == "gpu" else None
    if found:
        lines.append(f"card           {gib(found.used)} of {gib(found.total)} GiB of {found.name} in use")
    return lines


def _floors(budget: BudgetEntry | None, context: int) -> list[str]:
    """The bandwidth floor of every card that the budget has an engine for; contexts of one target share it."""
    lines: dict[str, str] = {}
    for engine in budget.engines if budget else ():
        target = load_targets().get(engine.target)  # None: one that this version does not know
        floor = target and budget and bandwidth_floor(budget.size(engine), target, context=max(1, context))
        if target and floor:
            name = target.display_name
            lines[engine.target] = f"card's bound   {name}: {floor:.0f} tokens/s by its memory bandwidth"
    return list(lines.values())
