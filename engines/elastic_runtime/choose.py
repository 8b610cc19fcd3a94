"""Which budget of a bundle fits a card: the largest one, reckoned from the manifest's bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from elastic_runtime.errors import InputError
from elastic_runtime.fit import VramNeed, gib, vram_needed
from elastic_runtime.manifest import BudgetEntry, EngineEntry


@dataclass(frozen=True)
class Reckoning:
    """One budget: the engine that would serve the request, what it needs, and why it was not chosen if it was not."""

    budget: BudgetEntry
    engine: EngineEntry | None
    need: VramNeed | None
    refusal: str

    @property
    def fits(self) -> bool:
        """Whether there is an engine for it whose memory is there."""
        return not self.refusal


@dataclass(frozen=True)
class Choice:
    """The answer of `choose`: the reckoning of every budget, largest first; the first that fits is chosen."""

    vram: int
    context: int
    batch: int
    reckonings: tuple[Reckoning, ...]

    @property
    def chosen(self) -> Reckoning | None:
        """The largest budget that fits, or None."""
        return next((reckoning for reckoning in self.reckonings if reckoning.fits), None)

    @property
    def budget(self) -> BudgetEntry | None:
        """The chosen budget, or None."""
        return self.chosen.budget if self.chosen else None

    @property
    def engine(self) -> EngineEntry | None:
        """The chosen engine, or None."""
        return self.chosen.engine if self.chosen else None

    def explain(self) -> str:
        """One line a budget: its reckoning and the verdict."""
        return "\n".join(
            [f"{gib(self.vram)} GiB, {self.context} tokens x {self.batch}:", *map(self._line, self.reckonings)]
        )

    def _line(self, reckoning: Reckoning) -> str:
        verdict = reckoning.refusal or ("chosen" if reckoning is self.chosen else "fits")
        sum_up = f"{reckoning.need.text()}: " if reckoning.need else ""
        return f"  {reckoning.budget.name}: {sum_up}{verdict}"


def choose(
    budgets: Iterable[BudgetEntry], *, vram: int, context: int, batch: int = 1, compute_capability: str | None = None
) -> Choice:
    """Reckon every budget; see `Choice`.

    Of the engines for enough context and batch (and for the card, where it is named) the one with the smallest context
    serves, since caches are allocated for all of it; then the one with the least activation memory, then by target
    name.

    Args:
        budgets: of a manifest.
        vram: bytes of GPU memory that are free.
        context: tokens that must be possible.
        batch: sequences at once.
        compute_capability: such as `12.0`; None leaves the card open.

    Raises:
        InputError: vram, context or batch below 1.
    """
    for subject, value in (("vram", vram), ("context", context), ("batch", batch)):
        if value < 1:
            raise InputError(subject, expected="at least 1", found=str(value))
    largest_first = sorted(budgets, key=lambda budget: (-budget.parameters, budget.name))
    return Choice(
        vram, context, batch, tuple(_reckon(b, vram, context, batch, compute_capability) for b in largest_first)
    )


def _reckon(budget: BudgetEntry, vram: int, context: int, batch: int, capability: str | None) -> Reckoning:
    for_card = [e for e in budget.engines if capability is None or capability in e.compute_capabilities]
    if not for_card:
        where = f" for compute capability {capability}" if capability else ""
        return Reckoning(budget, None, None, f"no engine{where}")
    able = [e for e in for_card if e.max_context >= context and e.max_batch >= batch]
    if not able:
        most = max(for_card, key=lambda e: (e.max_context, e.max_batch))
        return Reckoning(
            budget, None, None, f"no engine for this: the largest has {most.max_context} tokens x {most.max_batch}"
        )
    engine = min(able, key=lambda e: (e.max_context, e.activation, e.target))
    need = vram_needed(budget.size(engine), context=engine.max_context, batch=batch)
    short = need.total - vram
    return Reckoning(budget, engine, need, f"does not fit, {gib(short)} GiB short" if short > 0 else "")
