"""Opening a session on a bundle: which budget, which backend, and switching to another budget later."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elastic_runtime.backend import Backend, Floats
from elastic_runtime.bundle import Bundle
from elastic_runtime.choose import Choice
from elastic_runtime.errors import BuildError
from elastic_runtime.manifest import BudgetEntry
from elastic_runtime.mapped import MappedFile
from elastic_runtime.memory import Card, card, find_card, free_ram
from elastic_runtime.open_onnx import MAX_BATCH, WeightForm, context_of, open_onnx, ram_needed
from elastic_runtime.session import Session

BackendName = Literal["auto", "onnxruntime", "tensorrt-rtx"]
Say = Callable[[str], None]


def _ignore(text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Request:
    """What to open. None leaves a choice: the largest context an engine has, the memory that is free."""

    budget: str = "auto"
    backend: BackendName = "auto"
    vram: int | None = None
    context: int | None = None
    batch: int = 1
    weights: WeightForm = "auto"
    threads: int = 0
    plugin_folder: Path | None = None
    cache_folder: Path | None = None


@dataclass(frozen=True)
class Switch:
    """What a change of budget cost: seconds to open the new one and to feed it `tokens` tokens again."""

    budget: str
    open_seconds: float
    prefill_seconds: float
    tokens: int


class Opener:
    """Opens budgets of one bundle; files that budgets share stay mapped from one to the next.

    Args:
        bundle: an opened bundle.
        request: what to open; its budget is the first one's.
        say: hears of choices and warnings.
    """

    def __init__(self, bundle: Bundle, request: Request, say: Say = _ignore) -> None:
        self.bundle, self.request, self._say = bundle, request, say
        self._files: dict[Path, MappedFile] = {}
        self.budget: BudgetEntry | None = None

    def open(self, name: str | None = None) -> Session:
        """A session of the budget of that name, or of the request's.

        Raises:
            InputError: no such budget.
            BuildError: nothing fits, or the backend cannot run here; the text says why.
        """
        card = self._card()
        on_card = card is not None
        self.budget = budget = self._pick(name or self.request.budget, card)
        backend = self._engine(budget, card) if on_card and card else self._onnx(budget)
        return Session(backend, batch=self.request.batch)

    def switch(self, session: Session, name: str) -> tuple[Session, Floats, Switch]:
        """Close a session, open another budget and feed it the transcript of every row again; pending tokens stay so.

        Returns:
            The new session, its logits [B, V] after each row's last token, and what it cost.
        """
        rows, pending, start = [list(row) for row in session.tokens], session.pending, time.perf_counter()
        self.bundle.budget(name)  # an unknown name must not cost the old session
        session.close()
        opened = self.open(name)
        middle = time.perf_counter()
        opened.reset(len(rows))
        logits = opened.prefill(rows)
        for row, token in enumerate(pending):
            opened.set_pending(row, token)
        cost = Switch(name, middle - start, time.perf_counter() - middle, sum(map(len, rows)))
        return opened, logits, cost

    def explain(self) -> str:
        """The reckoning of every budget at the memory given or free. Raises InputError where neither is known."""
        return self._choice(None if self.request.vram else card()).explain()

    def _card(self) -> Card | None:
        """The card to run on, or None for the CPU."""
        wanted = self.request.backend
        if wanted == "onnxruntime":
            return None
        if wanted == "tensorrt-rtx":
            return card()
        found = find_card()
        served = {c for b in self.bundle.budgets for e in b.engines for c in e.compute_capabilities}
        if found and found.compute_capability in served:
            return found
        self._say(_why_cpu(found, served))
        return None

    def _pick(self, name: str, found: Card | None) -> BudgetEntry:
        if name != "auto":
            return self.bundle.budget(name)
        if found is None and self.request.vram is None:
            return self._largest_on_cpu()
        choice = self._choice(found)
        if choice.budget is None:
            raise BuildError("bundle", expected="a budget that fits", found="none", todo=f"see:\n{choice.explain()}")
        return choice.budget

    def _choice(self, found: Card | None) -> Choice:
        vram = self.request.vram or (found.free if found else 0)
        capability = found.compute_capability if found else None
        context = self.request.context or 1
        return self.bundle.choose(vram=vram, context=context, batch=self.request.batch, compute_capability=capability)

    def _largest_on_cpu(self) -> BudgetEntry:
        free = free_ram()
        for budget in self.bundle.budgets:
            recipe = None if budget.weights is None else self.bundle.recipe(budget)
            context = context_of(budget, self.request.context)
            if ram_needed(budget, recipe, context=context, batch=self.request.batch).stored <= free:
                return budget
        return self.bundle.budgets[-1]  # opening it says how much it would take

    def _onnx(self, budget: BudgetEntry) -> Backend:
        request = self.request
        return open_onnx(
            self.bundle,
            budget,
            context=request.context,
            batch=max(MAX_BATCH, request.batch),
            weights=request.weights,
            threads=request.threads,
            files=self._files,
        )

    def _engine(self, budget: BudgetEntry, found: Card) -> Backend:
        from elastic_runtime.open_tensorrt import open_tensorrt  # noqa: PLC0415  # only where there is a card

        return open_tensorrt(self.bundle, budget, self.request, found, files=self._files, say=self._say)


def _why_cpu(found: Card | None, served: set[str]) -> str:
    if found is None:
        return "no NVIDIA card here: running on the CPU with onnxruntime, in float32 arithmetic"
    return (
        f"{found.name} has compute capability {found.compute_capability}, the engines are for "
        f"{', '.join(sorted(served))}: running on the CPU with onnxruntime, in float32 arithmetic"
    )
