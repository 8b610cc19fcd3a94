"""Which engine serves a request on a card: of those that can run there, so a native one where a library is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import UnavailableError
from elastic_runtime.fit.choose import Choice, Reckoning, choose
from elastic_runtime.format.forms import AUTO
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.tensorrt.open_tensorrt import Wishes, check_runs, select_engine
from elastic_runtime.tensorrt.preflight import check_memory

NONE: Mapping[str, UnavailableError] = MappingProxyType({})


@dataclass(frozen=True)
class Chosen:
    """A budget with those engines alone that can run on the card, and a warning where a better one cannot."""

    budget: BudgetEntry
    warning: str


def choose_engine(
    bundle: Bundle,
    name: str,
    wishes: Wishes,
    card: Card,
    *,
    at_least: int = 1,
    failed: Mapping[str, UnavailableError] = NONE,
) -> Chosen:
    """The first of what the name stands for that has an engine which runs and fits.

    Args:
        bundle: where it lies.
        name: of a budget, of one form of it, or `auto`.
        wishes: of the request.
        card: with the memory that is free.
        at_least: tokens that must be possible, whatever the wishes say.
        failed: engines that loading showed not to run, by file, and why.

    Raises:
        InputError: no such budget.
        UnavailableError: none runs, for the reason that the first one that was loaded or else the best one does not, or
            none fits.
    """
    whole = bundle.forms(name)
    able, refused = _runnable(whole, wishes, card, failed)
    best, choice = (_reckon(budgets, wishes, card, at_least) for budgets in (whole, able))
    reasons = [refused[r.engine.file] for r in best.reckonings if r.engine is not None and r.engine.file in refused]
    if choice.chosen is None:
        if reasons and not any(budget.engines for budget in able):
            raise next(iter(failed.values()), reasons[0])
        if name != AUTO and len(able) == 1:  # says more about one budget
            engine = select_engine(able[0], wishes, card, at_least=at_least)
            check_memory(able[0], engine, card, batch=wishes.batch)
        found, todo = "none", f"see:\n{choice.explain()}"
        raise UnavailableError("bundle", expected="a budget that fits", found=found, todo=todo)
    return Chosen(choice.chosen.budget, _warning(best.chosen, choice.chosen, refused))


def explain_engines(bundle: Bundle, wishes: Wishes, card: Card) -> tuple[Choice, list[str]]:
    """The reckoning of every budget with the engines that can run on the card, and a line about each one that would
    serve and cannot. Nothing is loaded: what only loading shows is not known yet. Raises InputError about the wishes.
    """
    able, refused = _runnable(bundle.budgets, wishes, card, NONE)
    best, choice = (_reckon(budgets, wishes, card, 1) for budgets in (bundle.budgets, able))
    engines = [r.engine.file for r in best.reckonings if r.engine is not None]
    stuck = {b.name for b in able if not b.engines and any(e.file in refused for e in bundle.budget(b.name).engines)}
    reckonings = (
        replace(r, refusal="no engine that runs here") if r.budget.name in stuck else r for r in choice.reckonings
    )
    lines = [f"{file} does not run here: {refused[file]}" for file in engines if file in refused]
    return replace(choice, reckonings=tuple(reckonings)), lines


def _runnable(
    budgets: tuple[BudgetEntry, ...], wishes: Wishes, card: Card, failed: Mapping[str, UnavailableError]
) -> tuple[tuple[BudgetEntry, ...], dict[str, UnavailableError]]:
    """The budgets with the engines that can run on the card, and why not the others for its class, by file."""
    able, refused = [], dict(failed)
    for budget in budgets:
        engines = []
        for engine in budget.engines:
            if engine.file in failed or card.compute_capability not in engine.compute_capabilities:
                continue
            try:
                check_runs(engine, wishes, card)
            except UnavailableError as error:
                refused[engine.file] = error
            else:
                engines.append(engine)
        able.append(replace(budget, engines=tuple(engines)))
    return tuple(able), refused


def _reckon(budgets: tuple[BudgetEntry, ...], wishes: Wishes, card: Card, at_least: int) -> Choice:
    return choose(
        budgets,
        vram=card.free if wishes.vram is None else min(wishes.vram, card.free),
        context=wishes.context,
        at_least=at_least,
        batch=wishes.batch,
        compute_capability=card.compute_capability,
    )


def _warning(best: Reckoning | None, chosen: Reckoning, refused: dict[str, UnavailableError]) -> str:
    """For people: which engine serves in place of a better one, and why."""
    if best is None or best.engine is None or chosen.engine is None or best.engine.file not in refused:
        return ""
    return f"warning: {chosen.engine.file} in place of {best.engine.file}: {refused[best.engine.file]}"
