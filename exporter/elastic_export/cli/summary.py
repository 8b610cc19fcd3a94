"""What a finished (or planned) export prints on standard output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from elastic_export.plan.fit_table import align, parameters, size_text
from elastic_runtime.fit.targets import Target
from elastic_runtime.fit.vram import unfit, vram_needed
from elastic_runtime.format.budget_size import BudgetSize
from elastic_runtime.format.records import encode

if TYPE_CHECKING:
    from elastic_export.bundle.forecast import Forecast
    from elastic_export.bundle.results import BudgetResult, ExportResult
    from elastic_export.engine.engine_facts import EngineFacts
    from elastic_export.plan.job import ExportJob
    from elastic_runtime.format.manifest import EngineEntry


def summary(result: ExportResult) -> str:
    """Budget, parameters, layers, weights, verified error, engine size and seconds per stage; then what was not run."""
    heading = ["budget", "params", "layers", "weights", "verified error", "engines"]
    rows = [[*heading, "seconds: passes", "onnx", "engine"], *(_row(budget) for budget in result.budgets)]
    engines, files = sum(len(budget.engines) for budget in result.budgets), result.manifest.files
    replay = f"elastic-export verify {result.output} --require engine"
    return "\n".join(
        [
            *align(rows, left=(0,)),
            "",
            f"bundle {result.output}: {len(files)} files, {size_text(sum(file.size for file in files))}",
            f"{engines} engines are built and have run on no card: {replay}",
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
        *(f"{seconds.get(step, 0.0):.1f}" for step in ("passes", "onnx", "engine")),
    ]


def result_json(result: ExportResult) -> str:
    """The summary for programs, with the record of the run as `OUT.run.json` has it."""
    return json.dumps(
        {
            "output": str(result.output),
            "demo": result.manifest.demo,
            "budgets": [
                {
                    "name": b.budget.name,
                    "parameters": b.emitted.architecture.parameters(),
                    "layers": len(b.emitted.architecture.pattern),
                    "weight_bytes": b.size.weight_bytes,
                    "verified": None if b.verification is None else _checks(b),
                    "engines": [_engine(entry, facts) for entry, facts in b.engines],
                }
                for b in result.budgets
            ],
            "run": result.run,
        },
        indent=1,
    )


def _engine(entry: EngineEntry, facts: EngineFacts) -> dict[str, Any]:
    return {
        "target": entry.target,
        "file": entry.file,
        "bytes": facts.size,
        "activation": entry.activation,
        "fits": entry.fits.enough,
        "seconds": facts.seconds,
        "peak_rss": facts.peak_rss,
        "build": encode(facts.report()),
    }


def _checks(budget: BudgetResult) -> dict[str, Any]:
    assert budget.verification is not None
    return {c.name: {"error": c.comparison.worst.error, "top1": c.comparison.top1} for c in budget.verification.checks}


def plan_json(job: ExportJob, found: Forecast) -> str:
    """What `--dry-run --json` prints: the table for programs, and what the run takes."""
    contexts, batch = job.options.max_contexts, job.options.max_batch

    def vram(budget: BudgetSize) -> dict[str, int]:
        return {str(context): vram_needed(budget, context=context, batch=batch).total for context in contexts}

    def fits(budget: BudgetSize, target: Target) -> dict[str, bool | None]:
        known = target.usable_bytes is not None  # a portable target is no card of a known size
        return {
            str(context): not unfit([budget], target, context=context, batch=batch) if known else None
            for context in contexts
        }

    budgets = [
        {
            "name": budget.name,
            "parameters": budget.parameters,
            "weight_bytes": budget.weight_bytes,
            "vram_bytes": vram(budget),
            "fits": {target.name: fits(budget, target) for target in job.targets},
        }
        for budget in job.sizes
    ]
    return json.dumps({"precision": job.precision, "budgets": budgets, "takes": found.document()}, indent=1)
