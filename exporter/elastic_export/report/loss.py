"""What a page says of loss: budgets on a text, and what quantisation took from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elastic_export.report.chart import Bar, Bars, Part, Point, Scatter, bars_of, scatter_of
from elastic_export.weights.weight_loss import Rounding
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.fit.vram import GIB
from elastic_runtime.format.records import show

if TYPE_CHECKING:
    from elastic_export.evaluate.loss import Loss, TextLoss
    from elastic_export.evaluate.lost_rows import WeightLoss
    from elastic_export.evaluate.result import Evaluation, Row


@dataclass(frozen=True)
class LostRows:
    """What quantising took from a budget's weights, and the rows that lost most: (tensor, row, error) each."""

    budget: str
    quantisation: str
    text: str
    rows: tuple[tuple[str, str, str], ...]

    @classmethod
    def of(cls, budget: str, found: WeightLoss | Rounding) -> LostRows:
        """Of an evaluation, or of a budget's report."""
        total = found.total if isinstance(found, Rounding) else f"{found.error:.2%}"
        text = f"{show(found.quantisation)}, all matrices together off by {total}"
        rows = tuple((row.tensor, str(row.row), f"{row.error:.2%}") for row in found.rows)
        return cls(budget, found.quantisation, text, rows)


@dataclass(frozen=True)
class QuantisedFacts:
    """What quantisation took: against what, a table, the stream's error over depth by budget, and the worst rows."""

    against: str
    rows: tuple[tuple[str, ...], ...]
    depth: tuple[tuple[str, Scatter], ...]
    weights: tuple[LostRows, ...]


@dataclass(frozen=True)
class LossFacts:
    """What the budgets cost on a text: bars of bits per byte, a table, and what was measured on what, with whose
    weights.
    """

    bars: Bars
    rows: tuple[tuple[str, ...], ...]
    text: str
    against: str
    owners: str
    quantised: QuantisedFacts | None


def loss_facts(bundle: Bundle, evaluation: Evaluation, layers: int) -> LossFacts:
    """By budget, form and precision, those of the bundle's budgets alone, in whichever form the bundle has them; the
    parameters tell whether they are the same budgets.

    Args:
        bundle: of the page.
        evaluation: of its budgets, or of those of its checkpoint.
        layers: of the parent, for charts over depth.

    Raises:
        InputError: the evaluation is of other budgets.
    """
    counts = {budget.budget: budget.parameters for budget in bundle.budgets}
    rows = [row for row in evaluation.rows if counts.get(row.budget) == row.parameters]
    if not rows:
        names = ", ".join(dict.fromkeys(f"{row.budget} of {row.parameters} parameters" for row in evaluation.rows))
        raise InputError(
            "the evaluation",
            expected="budgets of the bundle: " + ", ".join(f"{name} of {count}" for name, count in counts.items()),
            found=show(names),
            todo="evaluate this bundle: elastic-export evaluate BUNDLE --text FILE --json FILE",
        )
    text, forms = evaluation.text, [show(evaluation.weights_of(row)) for row in rows]
    bars = [
        Bar(
            f"{row.budget} {form}, {row.precision}",
            (Part("bits per byte", row.bits_per_byte),),
            f"{row.bits_per_byte:.3f}",
        )
        for row, form in zip(rows, forms, strict=True)
    ]
    return LossFacts(
        bars=bars_of(bars),
        rows=tuple(map(_cells, rows, forms)),
        text=f"{show(text.name)}: {text.tokens:,} tokens, {text.bytes:,} bytes, windows of {text.context}",
        against=show(evaluation.compared_with, 200),
        owners=show(evaluation.owners, 400),
        quantised=None
        if evaluation.loss is None
        else _quantised(evaluation.loss, {row.budget for row in rows}, layers),
    )


def _cells(row: Row, form: str) -> tuple[str, ...]:
    return (
        row.budget,
        form,
        row.precision,
        f"{row.bits_per_byte:.4f}",
        "" if row.perplexity is None else f"{row.perplexity:.4g}",
        f"{row.kl_divergence:.4g}",
        f"{row.top1_agreement:.1%}",
        f"{row.vram_bytes / GIB:.1f} GiB",
    )


def _quantised(loss: Loss, budgets: set[str], layers: int) -> QuantisedFacts:
    text = [found for found in loss.text if found.budget in budgets]
    return QuantisedFacts(
        against=show(loss.against),
        rows=tuple(_lost(found) for found in text),
        depth=tuple(
            (f"{found.budget}, {found.quantisation}, {found.precision}", _depth(found, layers)) for found in text
        ),
        weights=tuple(LostRows.of(found.budget, found) for found in loss.weights if found.budget in budgets),
    )


def _lost(found: TextLoss) -> tuple[str, ...]:
    return (
        found.budget,
        found.quantisation,
        found.precision,
        f"{found.bits_per_byte:+.4f}",
        f"{found.kl_divergence:.4g}",
        f"{found.top1_agreement:.1%}",
        f"{found.logits:.2%}",
        found.worst,
    )


def _depth(found: TextLoss, layers: int) -> Scatter:
    points = [
        Point("stream", layer.layer, layer.error, f"after layer {layer.layer}: {layer.error:.2%}")
        for layer in found.layers
    ]
    most = max((layer.layer for layer in found.layers), default=0)
    return scatter_of(points, [], max(layers, most + 1), height=180.0)
