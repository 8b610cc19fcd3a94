"""Which budget of a bundle fits a card: the largest one, reckoned from the manifest's bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from elastic_runtime.fit.vram import VramNeed, check_count, gib, vram_needed
from elastic_runtime.format.manifest import BudgetEntry, EngineEntry, by_size


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
    """The answer of `choose`: the reckoning of every budget, largest first; the first that fits is chosen.

    `context` tokens must be possible; `largest` where the most that the memory allows was asked for.
    """

    vram: int
    context: int
    batch: int
    reckonings: tuple[Reckoning, ...]
    largest: bool = False

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
        tokens = f"{self.context} tokens or more" if self.largest else f"{self.context} tokens"
        return "\n".join([f"{gib(self.vram)} GiB, {tokens} x {self.batch}:", *map(self._line, self.reckonings)])

    def _line(self, reckoning: Reckoning) -> str:
        verdict = reckoning.refusal or ("chosen" if reckoning is self.chosen else "fits")
        sum_up = f"{reckoning.need.text()}: " if reckoning.need else ""
        return f"  {reckoning.budget.name}: {sum_up}{verdict}"


def choose(
    budgets: Iterable[BudgetEntry],
    *,
    vram: int,
    context: int | None = None,
    at_least: int = 1,
    batch: int = 1,
    compute_capability: str | None = None,
) -> Choice:
    """Reckon every budget; see `Choice`.

    The first that fits is chosen, in the order of `by_size`: the larger budget in eight bits rather than a smaller one,
    and the weights as they were trained rather than eight bits of them where both fit.

    Of the engines for enough context and batch (and for the card, where it is named) that fit the memory one serves:
    with a context asked for one with the smallest, since caches are allocated for all of it; without, one with the
    largest. Then a plugin engine comes before a native one; then decide the least activation memory and the target's
    name.

    Args:
        budgets: of a manifest.
        vram: bytes of GPU memory that are free.
        context: tokens that must be possible; None: as many as the memory allows.
        at_least: tokens that must be possible besides, as those of a transcript.
        batch: sequences at once.
        compute_capability: such as `12.0`; None leaves the card open.

    Raises:
        InputError: vram, context or batch below 1.
    """
    # A context below 1 stays as it is, so that it is refused, where the larger one of both would hide it.
    least = at_least if context is None else max(context, at_least) if context > 0 else context
    for subject, value in (("vram", vram), ("context", least), ("batch", batch)):
        check_count(subject, value)
    wish = _Wish(vram, least, batch, compute_capability, context is None)
    reckonings = tuple(_reckon(budget, wish) for budget in sorted(budgets, key=by_size))
    return Choice(vram, least, batch, reckonings, wish.largest)


@dataclass(frozen=True)
class _Wish:
    """Of `choose`, checked."""

    vram: int
    context: int
    batch: int
    capability: str | None
    largest: bool


def _reckon(budget: BudgetEntry, wish: _Wish) -> Reckoning:
    for_card = [e for e in budget.engines if wish.capability is None or wish.capability in e.compute_capabilities]
    if not for_card:
        where = f" for compute capability {wish.capability}" if wish.capability else ""
        return Reckoning(budget, None, None, f"no engine{where}")
    able = [e for e in for_card if e.max_context >= wish.context and e.max_batch >= wish.batch]
    if not able:
        most = max(for_card, key=lambda e: (e.max_context, e.max_batch))
        return Reckoning(
            budget, None, None, f"no engine for this: the largest has {most.max_context} tokens x {most.max_batch}"
        )
    engine, need = _serving(budget, able, wish)
    short = need.total - wish.vram
    return Reckoning(budget, engine, need, f"does not fit, {gib(short)} GiB short" if short > 0 else "")


def _serving(budget: BudgetEntry, able: list[EngineEntry], wish: _Wish) -> tuple[EngineEntry, VramNeed]:
    """The engine that serves, and its need; where none fits, the one that needs the least."""
    best_first = sorted(able, key=lambda e: (e.max_context, e.ops == "native", e.activation, e.target))
    needs = [(e, vram_needed(budget.size(e), context=e.max_context, batch=wish.batch)) for e in best_first]
    fitting = [pair for pair in needs if pair[1].total <= wish.vram]
    if not fitting:
        return min(needs, key=lambda pair: pair[1].total)
    if not wish.largest:
        return fitting[0]
    most = max(engine.max_context for engine, _ in fitting)
    return next(pair for pair in fitting if pair[0].max_context == most)
