"""What a page says of a bundle, out of its manifest, its reports and its recipes."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elastic_export.layers.all_kinds import KIND_OF
from elastic_export.plan.fit_table import parameters, short, size_text, weights_text
from elastic_export.report.chart import Bar, Bars, Part, Point, Scatter, bars_of, scatter_of
from elastic_export.report.loss import LossFacts, LostRows, loss_facts
from elastic_export.weights.weight_loss import Rounding
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError, advised
from elastic_runtime.fit.vram import GIB
from elastic_runtime.format.jsonfile import read_json
from elastic_runtime.format.manifest import BudgetEntry, EngineEntry
from elastic_runtime.format.paths import inside
from elastic_runtime.format.records import show

if TYPE_CHECKING:
    from elastic_export.evaluate.result import Evaluation

_LAYER = re.compile(r"layers\.(\d+)\.")
_TENSOR = re.compile(r"(\w+)\.(\d+)")
_AGAIN = "export the bundle again"
_CACHES = {"key_cache": "cache", "value_cache": "cache"}


@dataclass(frozen=True)
class Check:
    """A check of a budget's report. `top1` is empty where no tokens were compared."""

    name: str
    passed: bool
    against: str
    measure: str
    worst: str
    top1: str
    chart: Scatter | None


@dataclass(frozen=True)
class BudgetFacts:
    """A budget's part of the page. `passed`: None where nothing was verified."""

    name: str
    parameters: str
    layers: int
    kept: str
    weights: str
    passed: bool | None
    checks: tuple[Check, ...]
    bytes: Bars | None


@dataclass(frozen=True)
class EngineFacts:
    """A row of the table of engines."""

    budget: str
    target: str
    file: str
    ops: str
    context: str
    size: str
    scratch: str
    state: str
    fits: str


@dataclass(frozen=True)
class NotRun:
    """Checks that nobody has run: how many there are of the kind, why, and what runs them."""

    checks: tuple[str, ...]
    why: str
    command: str


@dataclass(frozen=True)
class BundleFacts:
    """The whole page."""

    name: str
    demo: bool
    precision: str
    weight_mode: str
    producer: str
    size: str
    budgets: tuple[BudgetFacts, ...]
    fits: tuple[tuple[str, Bars], ...]
    loss: LossFacts | None
    quantised: bool
    lost: tuple[LostRows, ...]
    engines: tuple[EngineFacts, ...]
    not_run: tuple[NotRun, ...]
    versions: Mapping[str, str]


def facts_of(bundle: Bundle, evaluation: Evaluation | None = None) -> BundleFacts:
    """What there is to say.

    Raises:
        InputError: a report or a recipe cannot be read, or the evaluation is of other budgets.
    """
    manifest, reports = bundle.manifest, {budget: _report(bundle, budget) for budget in bundle.budgets}
    pairs = [(budget, engine) for budget in bundle.budgets for engine in budget.engines]
    loss = None if evaluation is None else loss_facts(bundle, evaluation, _parent_layers(bundle))
    return BundleFacts(
        name=show(manifest.checkpoint.name),
        demo=manifest.demo,
        precision=manifest.precision,
        weight_mode=manifest.weight_mode,
        producer=manifest.producer,
        size=size_text(sum(file.size for file in manifest.files)),
        budgets=tuple(_budget(bundle, budget, report) for budget, report in reports.items()),
        fits=_fits(pairs),
        loss=loss,
        quantised=any(budget.quantisation for budget in bundle.budgets),
        lost=_lost(reports, loss),
        engines=tuple(_engine(bundle, budget, engine) for budget, engine in pairs),
        not_run=_not_run(reports),
        versions=dict(manifest.versions),
    )


def _report(bundle: Bundle, budget: BudgetEntry) -> dict[str, Any]:
    if budget.report is None:
        return {}
    with advised(_AGAIN):
        return read_json(inside(bundle.path, budget.report, budget.report))


def _lost(reports: Mapping[BudgetEntry, Mapping[str, Any]], loss: LossFacts | None) -> tuple[LostRows, ...]:
    """What rounding took, by the reports, and what the evaluation says of budgets or formats of which they do not."""
    found = {budget: Rounding.of_report(report, str(budget.report)) for budget, report in reports.items()}
    told = [(budget, rounding) for budget, rounding in found.items() if rounding is not None]
    known = {(name, rounding.quantisation) for budget, rounding in told for name in (budget.name, budget.budget)}
    measured = loss.quantised.weights if loss is not None and loss.quantised is not None else ()
    others = (rows for rows in measured if (rows.budget, rows.quantisation) not in known)
    return (*(LostRows.of(budget.name, rounding) for budget, rounding in told), *others)


@contextmanager
def _well_formed(budget: BudgetEntry) -> Iterator[None]:
    """A report is read as it stands; one that somebody else wrote may lack anything."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            str(budget.report),
            expected="a report as this version writes it",
            found=f"another form: {error!r}",
            todo=_AGAIN,
        ) from error


def _budget(bundle: Bundle, budget: BudgetEntry, report: Mapping[str, Any]) -> BudgetFacts:
    layers = _parent_layers(bundle)
    with _well_formed(budget):
        checks = tuple(_check(check, budget, layers) for check in report.get("checks", ()))
    gone = [str(i) for i in range(layers) if i not in budget.kept_layers]
    return BudgetFacts(
        name=budget.name,
        parameters=parameters(budget.parameters),
        layers=budget.layers,
        kept=f"the parent's layers 0 to {layers - 1}" + (f" without {', '.join(gone)}" if gone else ""),
        weights=weights_text(budget.weight_bytes, budget.quantisation),
        passed=report.get("passed"),
        checks=checks,
        bytes=None if budget.weights is None else _bytes(bundle, budget),
    )


def _parent_layers(bundle: Bundle) -> int:
    """As far as the bundle tells: up to the last layer that a budget of it keeps."""
    return 1 + max(max(budget.kept_layers) for budget in bundle.budgets)


def _check(check: Mapping[str, Any], budget: BudgetEntry, layers: int) -> Check:
    tensors = {name: (_number(t["error"]), _number(t["bound"])) for name, t in check["tensors"].items()}
    name, (error, bound) = max(tensors.items(), key=lambda item: item[1][0] / (item[1][1] or 1.0))
    parents = {state.name: state.parent_layer for state in budget.states}
    points = []
    for tensor, (value, _) in tensors.items():
        if match := _TENSOR.fullmatch(tensor):
            layer = parents.get(tensor, int(match[2]))
            points.append(Point(_CACHES.get(match[1], match[1]), layer, value, f"{tensor}: {value:.1e}"))
    bounds = sorted({bound for _, bound in tensors.values()})
    return Check(
        name=check["check"],
        passed=check["passed"],
        against=check["against"],
        measure=check["measure"],
        worst=f"{name}: {error:.1e} of {bound:.1e} allowed",
        top1=f"{check['top1']:.1%}" if "logits" in tensors else "",
        chart=scatter_of(points, bounds, layers) if points else None,
    )


def _number(value: float | str) -> float:
    """Reports name what is no number."""
    found = float(value)
    return found if math.isfinite(found) else math.inf


def _bytes(bundle: Bundle, budget: BudgetEntry) -> Bars:
    """Bytes of weights by layer of the parent, embedding and head around them."""
    sizes: defaultdict[int | str, int] = defaultdict(int)
    for item in bundle.recipe(budget).inputs:
        match = _LAYER.search(item.name)
        sizes[int(match[1]) if match else item.name] += item.nbytes
    rows = []
    outside = {str(key): size for key, size in sizes.items() if not isinstance(key, int)}
    embedding = sum(size for name, size in outside.items() if "embed" in name)  # values, and scales where it has some
    rows.append(Bar("embedding", (Part("embedding", embedding),), size_text(embedding)))
    for index, letter in zip(budget.kept_layers, budget.pattern, strict=True):  # weights have the parent's names
        size, kind = sizes.get(index, 0), KIND_OF[letter].called
        rows.append(Bar(f"{index} {kind}", (Part(kind, size),), size_text(size)))
    head = sum(size for name, size in outside.items() if "embed" not in name)
    rows.append(Bar("head", (Part("head", head),), size_text(head)))
    return bars_of(rows, said=90.0)


def _fits(pairs: list[tuple[BudgetEntry, EngineEntry]]) -> tuple[tuple[str, Bars], ...]:
    """Memory by card and context: what a budget takes, and a mark where the card's usable memory ends."""
    found: defaultdict[str, dict[tuple[str, int, str], Bar]] = defaultdict(dict)
    for budget, engine in pairs:
        need = engine.fits
        parts = {
            "weights": need.weights,
            "states": need.states,
            "caches": need.caches,
            "scratch": need.activation,
            "reserve": need.reserve,
        }
        mark = None if need.usable is None else float(need.usable)
        verdict = {True: "fits", False: "does not fit", None: ""}[need.enough]
        bar = Bar(
            f"{budget.name} at {short(engine.max_context)}, {engine.ops}",
            tuple(Part(name, size) for name, size in parts.items()),
            f"{need.total / GIB:.1f} GiB {verdict}".strip(),
            mark,
        )
        found[engine.target].setdefault((budget.name, engine.max_context, engine.ops), bar)
    return tuple((target, bars_of(list(bars.values()))) for target, bars in sorted(found.items()))


def _engine(bundle: Bundle, budget: BudgetEntry, engine: EngineEntry) -> EngineFacts:
    file, status = bundle.manifest.file(engine.file), engine.status
    return EngineFacts(
        budget=budget.name,
        target=engine.target,
        file=engine.file,
        ops=engine.ops,
        context=f"{engine.max_context:,}",
        size=size_text(file.size) if file else "",
        scratch=size_text(engine.activation),
        state="run on no card" if status.state == "built" else f"verified on {status.card}, {status.date}",
        fits={True: "yes", False: "no", None: "no one card"}[engine.fits.enough],
    )


def _not_run(reports: Mapping[BudgetEntry, Mapping[str, Any]]) -> tuple[NotRun, ...]:
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for budget, report in reports.items():
        if budget.report is None:
            found["the bundle has no report of it", "elastic-export --checkpoint DIR --budget NAME"].append(budget.name)
        with _well_formed(budget):
            for entry in report.get("not_run", ()):
                name = entry["check"] if "/" in entry["check"] else f"{budget.name}: {entry['check']}"
                found[entry["why"], entry["command"]].append(name)
    return tuple(NotRun(tuple(checks), why, command) for (why, command), checks in found.items())
