"""What a finished (or planned) export prints on standard output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from elastic_runtime.fit import unfit, vram_needed
from elastic_runtime.fit_table import align, parameters, size_text

if TYPE_CHECKING:
    from elastic_export.bundle.job import ExportJob
    from elastic_export.pipeline import BudgetResult, ExportResult

def summary(result: ExportResult) -> str:
    """Budget, parameters, layers, weights, verified error, engine size and seconds per stage; then what was not run."""
    heading = [
        "budget",
        "params",
        "layers",
        "weights",
        "verified error",
        "engines",
        "seconds: passes",
        "onnx",
        "verify",
        "engine",
    ]
    rows = [heading, *(_row(budget) for budget in result.budgets)]
    engines = sum(len(budget.engines) for budget in result.budgets)
    return "\n".join(
        [
            *align(rows, left=(0,)),
            "",
            f"bundle {result.output}: {len(result.manifest.files)} files, {size_text(sum(f.size for f in result.manifest.files))}",
            f"{engines} engines are built and have run on no card: elastic-export verify {result.output} --require engine",
        ]
    )


def _row(budget: BudgetResult) -> list[str]:
    model, seconds = budget.emitted.architecture, budget.seconds
    sizes = {facts.size for _, facts in budget.engines}
    return [
        budget.budget.name,
        parameters(model.parameters()),
        f"{len(model.pattern)}",
        size_text(budget.size.weight_bytes),
        "not verified" if budget.verification is None else f"{budget.verification.error:.1e}",
        ", ".join(size_text(n) for n in sorted(sizes)),
        *(f"{seconds.get(step, 0.0):.1f}" for step in ("passes", "onnx", "verify", "engine")),
    ]


def result_json(result: ExportResult) -> str:
    """The summary for programs."""
    return json.dumps(
        {
            "output": str(result.output),
            "demo": result.manifest.demo,
            "seconds": result.seconds,
            "budgets": [
                {
                    "name": b.budget.name,
                    "parameters": b.emitted.architecture.parameters(),
                    "layers": len(b.emitted.architecture.pattern),
                    "weight_bytes": b.size.weight_bytes,
                    "verified": None if b.verification is None else _checks(b),
                    "engines": [
                        {"target": e.target, "file": e.file, "bytes": f.size, "activation": f.activation_peak, "fits": e.fits.enough}
                        for e, f in b.engines
                    ],
                    "seconds": b.seconds,
                }
                for b in result.budgets
            ],
        },
        indent=1,
    )  # fmt: skip


def _checks(budget: BudgetResult) -> dict[str, Any]:
    assert budget.verification is not None
    return {c.name: {"error": c.comparison.worst.error, "top1": c.comparison.top1} for c in budget.verification.checks}


def plan_json(job: ExportJob) -> str:
    """What `--dry-run --json` prints: the table for programs."""
    options = job.options
    return json.dumps(
        {
            "precision": job.precision,
            "budgets": [
                {
                    "name": s.name,
                    "parameters": s.parameters,
                    "weight_bytes": s.weight_bytes,
                    "vram_bytes": {str(c): vram_needed(s, context=c, batch=options.max_batch).total for c in options.max_contexts},
                    "fits": {
                        t.name: {str(c): not unfit([s], t, context=c, batch=options.max_batch) for c in options.max_contexts}
                        for t in job.targets
                    },
                }
                for s in job.sizes
            ],
        },
        indent=1,
    )  # fmt: skip
