"""Which budget runs on a place, and what comes next where none does: engine, onnxruntime on the card, the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card, free_ram
from elastic_runtime.errors import BuildError, ElasticError, UnavailableError
from elastic_runtime.fit.choose import Choice
from elastic_runtime.format.forms import AUTO
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.opening.places import Place, Places
from elastic_runtime.opening.told import Say
from elastic_runtime.ort.open_onnx import CpuPlan, OnnxCard, plan_card, plan_cpu
from elastic_runtime.session_request import Request


class Candidates:
    """The budgets of a bundle for one request.

    Args:
        bundle: an opened bundle.
        request: what to open.
        places: of the request.
        say: hears where a better engine does not run.
    """

    def __init__(self, bundle: Bundle, request: Request, places: Places, say: Say) -> None:
        self._bundle, self._request, self._places, self._say = bundle, request, places, say

    def settle(
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

        Args:
            name: of a budget, of one form of it, or `auto`.
            place: the first one to try.
            at_least: tokens that must be possible, whatever the request says.
            rows: of a session; None: those of the request.
            switching: the last engine does not give way, and what the CPU has free is for `check` to say: a session
                holds some of it.
            failed: engines that loading showed not to run, by file, and why; they are left out.

        Raises:
            InputError: no such budget.
            BuildError: nothing fits; the text says why.
        """
        if isinstance(place, Card):
            try:
                return self._budget_with_engine(name, place, at_least, failed or {}), place
            except UnavailableError as error:
                if switching:
                    raise
                place = self._places.without_engine(place, error)
        if isinstance(place, OnnxCard):
            try:
                return self._largest_on_card(name, place, at_least, rows), place
            except UnavailableError as error:
                self._places.fall_back(place.card, error)
        return self._pick(name, at_least) if switching else self._fitting_cpu(name, at_least, rows), None

    def check(self, budget: BudgetEntry, place: Place, *, held: int, rows: int, at_least: int) -> None:
        """Whether the budget could run once a session has given `held` bytes of the place back. Raises BuildError."""
        if isinstance(place, OnnxCard):
            return  # `settle` has reckoned
        if place is None:
            free = free_ram() + held
            plan = self._plan(budget, free, at_least, rows)
            plan.need.form(self._request.weights, free, budget.name)
            return
        from elastic_runtime.tensorrt.open_tensorrt import (  # noqa: PLC0415
            check_engine,
            read_checked,
            select_engine,
        )

        then = replace(place, free=place.free + held)
        engine = select_engine(budget, self._request, then, at_least=at_least)
        check_engine(budget, engine, self._request, then)
        read_checked(self._bundle, engine)

    def choice(self, found: Card | None, at_least: int = 1, name: str = AUTO) -> Choice:
        """The reckoning of what the name stands for at the memory that is named or free on the card."""
        request = self._request
        limits = [limit for limit in (request.vram, found.free if found else None) if limit is not None]
        return self._bundle.choose(
            vram=min(limits, default=0),
            context=request.context,
            at_least=at_least,
            batch=request.batch,
            compute_capability=found.compute_capability if found else None,
            budget=name,
        )

    def explain(self, found: Card | None) -> str:
        """The reckoning of every budget, the engines that cannot run on the card, and what serves where none can.

        Nothing is loaded, so an engine may be refused yet when it is.

        Args:
            found: the card; None where memory was named for one that is not here: then engines of all cards count.

        Raises:
            InputError: vram or context are absurd.
        """
        if found is None:
            return self.choice(None).explain()
        from elastic_runtime.tensorrt.engine_choice import explain_engines  # noqa: PLC0415

        choice, refused = explain_engines(self._bundle, self._request, found)
        instead = [] if choice.chosen else [self._instead(found)]
        return "\n".join([choice.explain(), *refused, *instead])

    def _instead(self, found: Card) -> str:
        """What opening comes to where no engine serves."""
        try:
            budget, place = self.settle(self._request.budget, found)
        except ElasticError as error:
            return f"nothing runs here: {error}"
        where = "the CPU" if place is None else found.name
        return f"what runs here instead: {budget.name} on {where} with onnxruntime, in float32 arithmetic"

    def _budget_with_engine(
        self, name: str, found: Card, at_least: int, failed: Mapping[str, UnavailableError]
    ) -> BudgetEntry:
        """The budget with the engines that run on the card; says where a better one does not.

        Raises:
            UnavailableError: none does, or none fits.
        """
        from elastic_runtime.tensorrt.engine_choice import choose_engine  # noqa: PLC0415  # only where there is a card

        chosen = choose_engine(self._bundle, name, self._request, found, at_least=at_least, failed=failed)
        if chosen.warning:
            self._say(chosen.warning)
        return chosen.budget

    def _fitting_cpu(self, name: str, at_least: int, rows: int | None) -> BudgetEntry:
        """The budget for the CPU. Raises UnavailableError about one that does not fit, naming one that does."""
        budget, free = self._pick(name, at_least), free_ram()
        try:
            self._plan(budget, free, at_least, rows).need.form(self._request.weights, free, budget.name)
        except UnavailableError as error:
            fits = [each.name for each in self._bundle.budgets if self._fits_cpu(each, free, at_least, rows)]
            if not fits:
                raise
            todo = f"take the budget {fits[0]}, which fits, a smaller context, or run its engine on a card"
            raise UnavailableError(error.subject, expected=error.expected, found=error.found, todo=todo) from error
        return budget

    def _fits_cpu(self, budget: BudgetEntry, free: int, at_least: int, rows: int | None = None) -> bool:
        return self._plan(budget, free, at_least, rows).need.least(self._request.weights) <= free

    def _largest_on_card(self, name: str, place: OnnxCard, at_least: int, rows: int | None) -> BudgetEntry:
        """The first that fits of what the name stands for. Raises UnavailableError about the last."""
        context, rows = self._request.context, rows or self._request.batch
        *larger, last = self._bundle.forms(name)
        for budget in larger:
            with suppress(UnavailableError):
                plan_card(self._bundle, budget, place, context=context, rows=rows, at_least=at_least)
                return budget
        plan_card(self._bundle, last, place, context=context, rows=rows, at_least=at_least)
        return last

    def _pick(self, name: str, at_least: int = 1) -> BudgetEntry:
        *others, only = forms = self._bundle.forms(name)
        if name != AUTO and not others:
            return only
        if self._request.vram is None:
            return self._first_on_cpu(forms, at_least)
        choice = self.choice(None, at_least, name)
        if choice.budget is None:
            raise BuildError("bundle", expected="a budget that fits", found="none", todo=f"see:\n{choice.explain()}")
        return choice.budget

    def _first_on_cpu(self, forms: Sequence[BudgetEntry], at_least: int) -> BudgetEntry:
        free = free_ram()
        fitting = (budget for budget in forms if self._fits_cpu(budget, free, at_least))
        return next(fitting, forms[-1])  # opening the last says how much it would take

    def _plan(self, budget: BudgetEntry, free: int, at_least: int, rows: int | None = None) -> CpuPlan:
        request = self._request
        return plan_cpu(
            self._bundle,
            budget,
            context=request.context,
            rows=rows or request.batch,
            weights=request.weights,
            free=free,
            at_least=at_least,
        )
