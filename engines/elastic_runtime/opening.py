"""Opening a session on a bundle: which budget, which backend, and switching to another budget later."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from elastic_runtime.backend import Backend, Floats
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card, card, find_card, free_ram, why_no_card
from elastic_runtime.errors import BuildError, InputError, NoCudaError, UnavailableError
from elastic_runtime.fit.choose import Choice
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.format.mapped import MappedFile
from elastic_runtime.ort.open_onnx import (
    MAX_BATCH,
    CpuPlan,
    OnnxCard,
    given_back,
    onnx_card,
    open_onnx,
    plan_card,
    plan_cpu,
    running_on,
    why_cpu,
)
from elastic_runtime.session import Session
from elastic_runtime.session_request import Request

Place = Card | OnnxCard | None  # a card for an engine, a card for onnxruntime, the CPU
Say = Callable[[str], None]
T = TypeVar("T")


def _ignore(text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Switch:
    """What a change of budget cost: seconds to open the new one and to feed it `tokens` tokens again."""

    budget: str
    open_seconds: float
    prefill_seconds: float
    tokens: int


class LostError(BuildError):
    """A switch failed and the old budget did not open again: the session is closed."""


def open(bundle: Bundle | Path | str, request: Request | None = None, *, say: Say = _ignore) -> Session:  # noqa: A001
    """A session on a bundle, for whoever stays with the budget that is chosen; an `Opener` can switch to another one.

    Args:
        bundle: opened already, or its folder, which `Bundle.open` then checks.
        request: what to open; without one the largest budget that fits here, with the largest context that does.
        say: hears of choices and warnings.

    Raises:
        InputError: not a bundle, or no such budget in it.
        BuildError: a file is damaged, nothing fits, or the backend cannot run here; the text says why.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    return Opener(opened, request or Request(), say).open()


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
        self._place: Place = None  # of the open session
        self._no_engine: UnavailableError | None = None  # why none runs on a card that the bundle has engines for

    def open(self, name: str | None = None) -> Session:
        """A session of the budget of that name, or of the request's.

        Raises:
            InputError: no such budget.
            BuildError: nothing fits, or the backend cannot run here; the text says why.
        """
        wish = name or self.request.budget
        budget, place = self._settle(wish, self._find_place())
        budget, place, backend = self._load(wish, budget, place)
        opened = _closing_on_failure(backend, lambda: Session(backend, batch=self.request.batch))
        self.budget = budget
        if opened.backend.device == "gpu" and isinstance(place, OnnxCard):
            self._say(running_on(place, self._no_engine))
        return opened

    def switch(self, session: Session, name: str) -> tuple[Session, Floats, Switch]:
        """Open another budget and feed it the transcript of every row again; pending tokens stay so.

        Choice, memory and context are checked before the old budget is closed. Where opening the new one fails all the
        same, or closing the old one, it is opened again under the same session, its transcript fed again, and the error
        goes on.

        Returns:
            The new session, its logits [B, V] after each row's last token, and what it cost.

        Raises:
            InputError: no such budget.
            BuildError: it cannot run here with that transcript; `session` still can.
            LostError: nor could the old one be opened again; `session` is closed.
        """
        rows, start = [list(row) for row in session.tokens], time.perf_counter()
        found, at_least = self._place_again(), max(map(len, rows)) + 1
        if isinstance(found, OnnxCard):
            found = given_back(found, session.backend, self.request.vram)
        then = replace(found, free=found.free + _held(session)) if isinstance(found, Card) else found
        budget, place = self._settle(name, then, at_least, len(rows), switching=True)
        place = found if isinstance(found, Card) else place  # `_check` counts what is given back once more
        self._check(budget, place, session, at_least)
        pending, old, old_place = session.pending, self.budget, self._place
        try:
            session.close()
            budget, _, backend = self._load(name, budget, self._now(place), at_least, len(rows), switching=True)
            opened = _closing_on_failure(backend, lambda: Session(backend, batch=len(rows)))
            middle = time.perf_counter()
            logits = _closing_on_failure(backend, lambda: _feed(opened, rows, pending))
        except Exception as error:
            self._place = old_place
            self._restore(session, old, rows, pending, error)
            raise
        self.budget = budget
        cost = Switch(budget.name, middle - start, time.perf_counter() - middle, sum(map(len, rows)))
        return opened, logits, cost

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
                raise BuildError("session", expected="one of this opener", found="another")
            at_least = max(map(len, rows)) + 1
            backend = self._backend(old, self._now(self._place), at_least, len(rows))
            session.backend = backend
            _closing_on_failure(backend, lambda: _feed_again(session, rows, pending))
        except Exception as error:
            todo = f"open the bundle again; the switch failed of: {reason}"
            expected = f"budget {old.name!r} to open again" if old else "the old budget to open again"
            raise LostError("switch of budgets", expected=expected, found=str(error), todo=todo) from error

    def explain(self) -> str:
        """The reckoning of every budget at the memory given or free. Raises InputError where neither is known."""
        return self._choice(card() if self.request.vram is None else None).explain()

    def _find_place(self, *, quiet: bool = False) -> Place:
        """Where to run, as far as it does not depend on the budget."""
        request = self.request
        if request.backend == "tensorrt-rtx":
            if request.device == "cpu":
                expected, todo = "auto or gpu for the backend tensorrt-rtx", "take the backend onnxruntime for the CPU"
                raise InputError("device", expected=expected, found="cpu", todo=todo)
            return _card_for_an_engine()
        if request.device == "cpu":
            return None
        found = find_card()
        if request.backend == "auto" and found and found.compute_capability in self._served():
            return found
        return self._without_engine(found, quiet=quiet)

    def _place_again(self) -> Place:
        """Where a switch starts: on a place of the kind that the open session has, with what is free there now.

        A session that fell back from an engine would fall back again, and a switch refuses to.
        """
        if self.budget is None or isinstance(self._place, Card):
            return self._find_place(quiet=True)
        return None if self._place is None else self._without_engine(find_card(), self._no_engine, quiet=True)

    def _without_engine(
        self, found: Card | None, reason: UnavailableError | None = None, *, quiet: bool = False
    ) -> Place:
        """What comes after the engines: the card under onnxruntime, else the CPU.

        Args:
            found: the card.
            reason: why none of the engines for it serves.
            quiet: nobody is to hear of the CPU.

        Raises:
            UnavailableError: the reason, where an engine was asked for; why onnxruntime does not take the card, where
                the card was.
        """
        if reason is not None and self.request.backend != "auto":
            raise reason
        self._no_engine = reason
        try:
            return onnx_card(found, vram=self.request.vram, weights=self.request.weights)
        except UnavailableError as error:
            self._fall_back(found, error, quiet=quiet)
            return None

    def _served(self) -> set[str]:
        return {c for b in self.bundle.budgets for e in b.engines for c in e.compute_capabilities}

    def _fall_back(self, found: Card | None, error: UnavailableError, *, quiet: bool = False) -> None:
        """Say why the CPU is taken. Raises the error where the card was asked for."""
        no_card = why_no_card() if found is None else None
        if self.request.device == "gpu" and self._no_engine is not None:  # which is why onnxruntime was asked at all
            raise NoCudaError(f"{error.found}; no engine runs here: {self._no_engine}")
        if self.request.device == "gpu":
            raise error if no_card is None else _without_card("device gpu", no_card, "run on the CPU (--device cpu)")
        if not quiet:
            served = self._served() if self.request.backend == "auto" else None
            self._say(why_cpu(found, served, error, self._no_engine, no_card))

    def _now(self, place: Place) -> Place:
        """The place again after a session has closed.

        An engine's memory is free then. onnxruntime keeps what its values on a card took, for values to come: the
        driver counts that as used, so the reckoning from before stands.
        """
        return self._find_place(quiet=True) if isinstance(place, Card) else place

    def _load(
        self,
        name: str,
        budget: BudgetEntry,
        place: Place,
        at_least: int = 1,
        rows: int | None = None,
        *,
        switching: bool = False,
    ) -> tuple[BudgetEntry, Place, Backend]:
        """The backend, of what was settled; where only loading an engine shows that it does not run, of the next best
        thing, as if that engine were not there.
        """
        failed = dict[str, UnavailableError]()
        while True:
            try:
                return budget, place, self._backend(budget, place, at_least, rows)
            except UnavailableError as error:
                if not isinstance(place, Card):
                    raise
                from elastic_runtime.tensorrt.open_tensorrt import select_engine  # noqa: PLC0415

                failed[select_engine(budget, self.request, place, at_least=at_least).file] = error
                budget, place = self._settle(name, place, at_least, rows, switching=switching, failed=failed)

    def _settle(
        self,
        name: str,
        place: Place,
        at_least: int = 1,
        rows: int | None = None,
        *,
        switching: bool = False,
        failed: Mapping[str, UnavailableError] | None = None,
    ) -> tuple[BudgetEntry, Place]:
        """The budget, and where it runs: one without an engine that runs on the card runs there under onnxruntime, one
        that has no room there either on the CPU.

        Engines that `failed` to load are left out. Switching, the last engine does not give way, and what the CPU has
        free is for `_check` to say: a session holds some of it.
        """
        if isinstance(place, Card):
            try:
                return self._budget_with_engine(name, place, at_least, failed or {}), place
            except UnavailableError as error:
                if switching:
                    raise
                place = self._without_engine(place, error)
        if isinstance(place, OnnxCard):
            try:
                return self._largest_on_card(name, place, at_least, rows), place
            except UnavailableError as error:
                self._fall_back(place.card, error)
        return self._pick(name, at_least) if switching else self._fitting_cpu(name, at_least, rows), None

    def _budget_with_engine(
        self, name: str, found: Card, at_least: int, failed: Mapping[str, UnavailableError]
    ) -> BudgetEntry:
        """The budget with the engines that run on the card; says where a better one does not.

        Raises:
            UnavailableError: none does, or none fits.
        """
        from elastic_runtime.tensorrt.engine_choice import choose_engine  # noqa: PLC0415  # only where there is a card

        chosen = choose_engine(self.bundle, name, self.request, found, at_least=at_least, failed=failed)
        if chosen.warning:
            self._say(chosen.warning)
        return chosen.budget

    def _fitting_cpu(self, name: str, at_least: int, rows: int | None) -> BudgetEntry:
        """The budget for the CPU. Raises UnavailableError about one that does not fit, naming one that does."""
        budget, free = self._pick(name, at_least), free_ram()
        try:
            self._plan(budget, free, at_least, rows).need.form(self.request.weights, free, budget.name)
        except UnavailableError as error:
            fits = [each.name for each in self.bundle.budgets if self._fits_cpu(each, free, at_least, rows)]
            if not fits:
                raise
            todo = f"take the budget {fits[0]}, which fits, a smaller context, or run its engine on a card"
            raise UnavailableError(error.subject, expected=error.expected, found=error.found, todo=todo) from error
        return budget

    def _fits_cpu(self, budget: BudgetEntry, free: int, at_least: int, rows: int | None = None) -> bool:
        return self._plan(budget, free, at_least, rows).need.least(self.request.weights) <= free

    def _largest_on_card(self, name: str, place: OnnxCard, at_least: int, rows: int | None) -> BudgetEntry:
        """The budget of that name, or the largest that fits. Raises UnavailableError about the smallest."""
        context, rows = self.request.context, rows or self.request.batch
        *larger, last = self.bundle.budgets if name == "auto" else (self.bundle.budget(name),)
        for budget in larger:
            with suppress(UnavailableError):
                plan_card(self.bundle, budget, place, context=context, rows=rows, at_least=at_least)
                return budget
        plan_card(self.bundle, last, place, context=context, rows=rows, at_least=at_least)
        return last

    def _pick(self, name: str, at_least: int = 1) -> BudgetEntry:
        if name != "auto":
            return self.bundle.budget(name)
        if self.request.vram is None:
            return self._largest_on_cpu(at_least)
        choice = self._choice(None, at_least)
        if choice.budget is None:
            raise BuildError("bundle", expected="a budget that fits", found="none", todo=f"see:\n{choice.explain()}")
        return choice.budget

    def _choice(self, found: Card | None, at_least: int = 1) -> Choice:
        request = self.request
        limits = [limit for limit in (request.vram, found.free if found else None) if limit is not None]
        return self.bundle.choose(
            vram=min(limits, default=0),
            context=request.context,
            at_least=at_least,
            batch=request.batch,
            compute_capability=found.compute_capability if found else None,
        )

    def _largest_on_cpu(self, at_least: int) -> BudgetEntry:
        free = free_ram()
        for budget in self.bundle.budgets:
            if self._fits_cpu(budget, free, at_least):
                return budget
        return self.bundle.budgets[-1]  # opening it says how much it would take

    def _plan(self, budget: BudgetEntry, free: int, at_least: int, rows: int | None = None) -> CpuPlan:
        request = self.request
        return plan_cpu(
            self.bundle,
            budget,
            context=request.context,
            rows=rows or request.batch,
            weights=request.weights,
            free=free,
            at_least=at_least,
        )

    def _check(self, budget: BudgetEntry, found: Place, session: Session, at_least: int) -> None:
        """Whether the budget could run once the session has given its memory back. Raises BuildError."""
        if isinstance(found, OnnxCard):
            return  # `_settle` has reckoned
        held = _held(session)
        if found is None:
            free = free_ram() + (held if session.backend.device == "cpu" else 0)
            plan = self._plan(budget, free, at_least, session.batch)
            plan.need.form(self.request.weights, free, budget.name)
            return
        from elastic_runtime.tensorrt.open_tensorrt import check_engine, select_engine  # noqa: PLC0415

        then = replace(found, free=found.free + held)
        engine = select_engine(budget, self.request, then, at_least=at_least)
        check_engine(self.bundle, budget, engine, self.request, then)

    def _backend(self, budget: BudgetEntry, place: Place, at_least: int = 1, rows: int | None = None) -> Backend:
        """The backend there; on the CPU where onnxruntime does not take the card after all."""
        try:
            backend = self._open(budget, place, at_least, rows)
        except NoCudaError as error:
            found, place = place.card if isinstance(place, OnnxCard) else None, None
            self._fall_back(found, error)
            backend = self._open(budget, place, at_least, rows)
        self._place = place
        return backend

    def _open(self, budget: BudgetEntry, place: Place, at_least: int, rows: int | None) -> Backend:
        request = self.request
        if isinstance(place, Card):
            from elastic_runtime.tensorrt.open_tensorrt import open_tensorrt  # noqa: PLC0415  # only where there is a card

            return open_tensorrt(
                self.bundle, budget, request, place, at_least=at_least, files=self._files, say=self._say
            )
        return open_onnx(
            self.bundle,
            budget,
            context=request.context,
            at_least=at_least,
            rows=rows or request.batch,
            batch=max(MAX_BATCH, request.batch),
            weights=request.weights,
            threads=request.threads,
            files=self._files,
            place=place,
        )


def _held(session: Session) -> int:
    return sum(session.backend.memory().values())


def _card_for_an_engine() -> Card:
    """The card. Raises UnavailableError where there is none: naming its memory, as `card` advises, makes none."""
    try:
        return card()
    except InputError as error:
        raise _without_card("the backend tensorrt-rtx", error, "take the backend onnxruntime") from error


def _without_card(subject: str, error: InputError, instead: str) -> UnavailableError:
    """The reason why there is no card, of what was asked for by name."""
    todo = f"look at the driver and CUDA_VISIBLE_DEVICES, or {instead}"
    return UnavailableError(subject, expected=error.expected, found=error.found, todo=todo)


def _feed(session: Session, rows: Sequence[Sequence[int]], pending: Sequence[int | None]) -> Floats:
    """Give a new session the transcript of another -> logits [B, V]; zeros where there is none yet."""
    nothing = np.zeros((len(rows), session.backend.vocab_size), np.float32)
    logits = session.prefill(rows) if any(rows) else nothing
    for row, token in enumerate(pending):
        session.set_pending(row, token)
    return logits


def _feed_again(session: Session, rows: Sequence[Sequence[int]], pending: Sequence[int | None]) -> None:
    """Give a session with a new backend its own transcript."""
    session.reset(len(rows))
    _feed(session, rows, pending)


def _closing_on_failure(backend: Backend, work: Callable[[], T]) -> T:
    try:
        return work()
    except BaseException:
        backend.close()
        raise
