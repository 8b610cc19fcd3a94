"""What quantisation costs, in the words of an evaluation's JSON file and as a table.

A report and not a gate: what is too much depends on what the model is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from elastic_export.evaluate.lost_rows import WeightLoss
from elastic_export.plan.fit_table import align
from elastic_runtime.format.interface import Precision

_SHOWN = 3  # rows of a sub-model's that the table names


@dataclass(frozen=True)
class LayerError:
    """Of the residual stream after a layer of the parent, see `distance.Distance`."""

    layer: int
    error: float


@dataclass(frozen=True)
class TextLoss:
    """What quantisation took from a budget on the text, in one precision: against the same budget unquantised.

    Attributes:
        budget, quantisation, precision: which.
        bits_per_byte: how many more.
        kl_divergence: (1 / T)·Σ KL(unquantised ‖ quantised), nats a token.
        top1_agreement: share of tokens before which both find the same one most likely.
        logits: ‖quantised - unquantised‖ / ‖unquantised‖ of the logits.
        embedding: the same of the residual stream before the first layer,
        layers: and after each.
    """

    budget: str
    quantisation: str
    precision: Precision
    bits_per_byte: float
    kl_divergence: float
    top1_agreement: float
    logits: float
    embedding: float
    layers: tuple[LayerError, ...]

    @property
    def worst(self) -> str:
        """The layer after which the stream is furthest off: `1.25% after layer 7`; empty where there is none."""
        if not self.layers:
            return ""
        layer = max(self.layers, key=lambda layer: layer.error)
        return f"{layer.error:.2%} after layer {layer.layer}"


@dataclass(frozen=True)
class Loss:
    """All of it. `against` is the checkpoint whose budgets are the unquantised ones."""

    against: str
    text: tuple[TextLoss, ...]
    weights: tuple[WeightLoss, ...]

    def table(self) -> Iterator[str]:
        """For people."""
        heading = ["budget", "weights", "precision", "bits/byte", "KL", "top-1", "logits", "worst layer"]
        yield f"lost by quantising, against the same budget of {self.against}:"
        yield from align([heading, *map(_cells, self.text)], left=(0, 1, 2))
        yield "logits and the residual stream after its worst layer: relative L2 error; KL in nats a token"
        for weights in self.weights:
            yield f"{weights.budget}: {weights.quantisation} weights are off by {weights.error:.2%}, most of all"
            yield from (f"  {row.error:6.2%}  {row.tensor} row {row.row}" for row in weights.rows[:_SHOWN])


def _cells(loss: TextLoss) -> list[str]:
    figures = [f"{loss.bits_per_byte:+.4f}", f"{loss.kl_divergence:.4g}", f"{loss.top1_agreement:.1%}"]
    return [loss.budget, loss.quantisation, loss.precision, *figures, f"{loss.logits:.2%}", loss.worst]
