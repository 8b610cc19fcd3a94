"""What a finished (or planned) export prints on standard output."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastic_export.plan.fit_table import align, parameters, size_text, weights_text
from elastic_export.weights.weight_loss import Rounding
from elastic_runtime.fit.targets import Target
from elastic_runtime.fit.vram import unfit, vram_needed
from elastic_runtime.format.budget_size import BudgetSize
from elastic_runtime.format.manifest_reader import NAME
from elastic_runtime.format.records import encode

if TYPE_CHECKING:
    from elastic_export.bundle.forecast import Forecast
    from elastic_export.bundle.results import BudgetResult, EngineResult, ExportResult
    from elastic_export.plan.job import ExportJob
    from elastic_runtime.format.manifest import BudgetEntry, Manifest


def summary(result: ExportResult, checkpoint: Path) -> str:
    """Budget, parameters, layers, weights, verified error, engine size and seconds per stage; then what was not run and
    what rounding took.

    Args:
        result: of an export.
        checkpoint: the folder that was exported, with which a quantised bundle is compared.
    """
    heading = ["budget", "params", "layers", "weights", "verified error", "engines"]
    rows = [[*heading, "seconds: passes", "onnx", "engine"], *(_row(result, budget) for budget in result.budgets)]
    engines = sum(len(budget.engines) for budget in result.budgets)
    entries = [_entry(result, budget) for budget in result.budgets]
    kinds = ", ".join(dict.fromkeys(entry.quantisation for entry in entries if entry.quantisation))
    named, parent = (shlex.quote(str(path)) for path in (result.output, checkpoint))
    built = "1 engine is built and has" if engines == 1 else f"{engines} engines are built and have"
    replay = f"elastic-export verify {named} --require engine"
    lost = f"elastic-export evaluate {named} --against {parent} --text FILE"
    same = "" if result.changed else "; nothing to do: this export would write the same"
    return "\n".join(
        [
            *align(rows, left=(0,)),
            "",
            f"bundle {result.output}: {contents(result.output, result.manifest)}{same}",
            f"{built} run on no card: {replay}",
            *(f"{name}: {rounding.text()}" for name, rounding in _roundings(result)),
            *([f"what {kinds} has lost on a text: {lost}"] if kinds else []),
        ]
    )


def contents(bundle: Path, manifest: Manifest) -> str:
    """How many files a bundle has, the manifest one of them, and their size."""
    sizes = [(bundle / NAME).stat().st_size, *(file.size for file in manifest.files)]
    return f"{len(sizes)} files, {size_text(sum(sizes))}"


def _roundings(result: ExportResult) -> Iterator[tuple[str, Rounding]]:
    """Of the budgets that are quantised, by their names."""
    for budget in result.budgets:
        rounding = Rounding.of_report(budget.report, budget.budget.name)
        if rounding is not None:
            yield budget.budget.name, rounding


def _row(result: ExportResult, budget: BudgetResult) -> list[str]:
    """Of a step that was not run, as its artefact was there already, no seconds."""
    entry, checks = _entry(result, budget), list(_checks(budget).values())
    seconds = {step: f"{taken:.1f}" for step, taken in budget.seconds.items()}
    return [
        entry.name,
        parameters(entry.parameters),
        f"{entry.layers}",
        weights_text(entry.weight_bytes, entry.quantisation),
        f"{checks[0]['error']:.1e}" if checks else "not verified",
        ", ".join(size_text(n) for n in sorted({engine.size for engine in budget.engines})),
        *(seconds.get(step, "-") for step in ("passes", "onnx", "engine")),
    ]


def _entry(result: ExportResult, budget: BudgetResult) -> BudgetEntry:
    entry = result.manifest.budget(budget.budget.name)
    assert entry is not None, "every budget of an export is in its manifest"
    return entry


def result_json(result: ExportResult) -> str:
    """The summary for programs, with the record of the run as `OUT.run.json` has it."""
    return json.dumps(
        {
            "output": str(result.output.resolve()),  # whoever reads it may be elsewhere
            "changed": result.changed,
            "demo": result.manifest.demo,
            "notes": list(result.notes),
            "budgets": [
                {
                    "name": entry.name,
                    "kept": b.kept is not None,
                    "parameters": entry.parameters,
                    "layers": entry.layers,
                    "weight_bytes": entry.weight_bytes,
                    "quantisation": entry.quantisation,
                    "rounding": b.report["rounding"],
                    "verified": _checks(b) or None,
                    "engines": [_engine(engine) for engine in b.engines],
                }
                for b, entry in ((b, _entry(result, b)) for b in result.budgets)
            ],
            "run": result.run,
        },
        indent=1,
    )


def _engine(engine: EngineResult) -> dict[str, Any]:
    """`kept`, without seconds and memory: it is of the older bundle."""
    entry, facts = engine.entry, engine.facts
    return {
        "kept": facts is None,
        "target": entry.target,
        "file": entry.file,
        "bytes": engine.size,
        "activation": entry.activation,
        "fits": entry.fits.enough,
        "seconds": None if facts is None else facts.seconds,
        "peak_rss": None if facts is None else facts.peak_rss,
        "build": encode(engine.report),
    }


def _checks(budget: BudgetResult) -> dict[str, dict[str, Any]]:
    """By the check's name, as the report has them; none where nothing was verified."""
    return {
        check["check"]: {"error": max(tensor["error"] for tensor in check["tensors"].values()), "top1": check["top1"]}
        for check in budget.report["checks"]
    }


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
    notes, takes = list(job.said), found.document() | {"carried_over": found.carried.document(job)}
    kind = {"precision": job.precision, "quantize": job.options.quantise}
    return json.dumps({**kind, "notes": notes, "budgets": budgets, "takes": takes}, indent=1)
