"""A proposal as a budget file: `elastic-budgets/1` with the key `proposed`, which says how it came about.

    {"format": "elastic-budgets/1", "budgets": {"9b": {...}, "6b": {...}},
     "proposed": {
       "note": "Proposed by measuring on a text. These are not the vendor's budgets.",
       "targets": {"9b": {"params": 9000000000}, "6b": {"params": 6000000000}},
       "search": {"tokens": 255, "rounds": 3},
       "axes": {"hidden_size": {"first": 0.21, "last": 4.1, "sorted": true}, …},
       "layers": [{"layer": 54, "mse": 0.0012, "kl_divergence": 0.0031}, …],
       "evaluation": {…}}}

`axes` has KL divergences where an axis keeps three quarters, its first or its last ones; `layers` are in the order in
which they leave; `evaluation` is an `elastic-evaluation/1` of parent and budgets, with digest and size of the text.
"""

from __future__ import annotations

from typing import Any

from elastic_export.checkpoint.budgets import PROPOSED, budgets_document
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate.from_checkpoint import PARENT
from elastic_export.evaluate.result import SCHEMA, Evaluation, Measured, Reference, Source, evaluation
from elastic_export.propose.propose import Proposal, Request
from elastic_runtime.format.interface import Precision
from elastic_runtime.format.records import encode

NOTE = "Proposed by measuring on a text. These are not the vendor's budgets."


def proposal_evaluation(found: Proposal, request: Request, checkpoint: Checkpoint, vram_context: int) -> Evaluation:
    """What parent and budgets say of the final text."""
    arch = checkpoint.architecture
    rows = [(budget.name, budget.architecture(arch)) for budget in found.budgets]
    scored = zip([(PARENT, arch), *rows], [found.parent, *found.scores], strict=True)
    source = Source("checkpoint", checkpoint.name, checkpoint.dtype)
    precision: Precision = "fp32"
    results = [Measured(name, model, precision, score) for (name, model), score in scored]
    return evaluation(source, request.final, results, Reference(PARENT, "fp32"), vram_context)


def proposal_document(
    found: Proposal, request: Request, checkpoint: Checkpoint, measured: Evaluation, target_facts: dict[str, Any]
) -> dict[str, Any]:
    """The file; `target_facts` is what targets are of besides their sizes (precision, context)."""
    option = request.measure.option.removeprefix("--")
    facts = {
        "note": NOTE,
        "targets": {target.name: {option: target.limit, **target_facts} for target in request.targets},
        "search": {"tokens": request.search.tokens, "rounds": request.rounds},
        "axes": {
            axis.key: {"first": _short(axis.first), "last": _short(axis.last), "sorted": axis.is_sorted}
            for axis in found.axes
        },
        "layers": [
            {"layer": layer, "mse": _short(loss.mse), "kl_divergence": _short(loss.divergence)}
            for layer, loss in found.layers.items()
        ],
        "evaluation": {"schema": SCHEMA, **encode(measured)},
    }
    return {**budgets_document(checkpoint.architecture, found.budgets), PROPOSED: facts}


def _short(value: float) -> float:
    """Six figures: more would say nothing."""
    return float(f"{value:.6g}")
