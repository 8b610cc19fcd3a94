"""A budget's report.json."""

from __future__ import annotations

import json

from elastic_export.bundle.made_from import Origin, checkpoint_digest, origin_of_evidence, origin_of_model
from elastic_export.bundle.results import BudgetResult
from elastic_export.bundle.standing import Standing
from elastic_export.bundle.versions import versions
from elastic_export.bundle.writer import BundleWriter
from elastic_export.files import REPORT
from elastic_export.plan.job import ExportJob
from elastic_export.verify.report import engines_not_run, no_verification, report_of
from elastic_runtime.format.records import encode

#: What a kept model's report still says of it: checks where they are asked for, and what was taken from its weights.
_CHECKS = ("passed", "checks", "run")
_TAKEN = ("conversion", "rounding")


def write_report(job: ExportJob, result: BudgetResult, standing: Standing, writer: BundleWriter) -> None:
    """Write what was verified and what was not, what the builder said, what was taken from the weights, and what
    everything was made from. Waits for the digests of the checkpoint.
    """
    files, kept = [engine.entry.file for engine in result.engines], result.kept
    skipped = engines_not_run(files) if job.options.verify else [no_verification(), *engines_not_run(files)]
    report = report_of(
        result.verification,
        budget=result.budget.name,
        versions=versions(job.product),
        skipped=skipped,
        engines={engine.entry.file: encode(engine.report) for engine in result.engines},
        conversion=None if result.conversion is None else result.conversion.report(),
        rounding=None if result.rounding is None else encode(result.rounding),
    )
    if kept is not None:
        still = (*_CHECKS, *_TAKEN) if job.options.verify else _TAKEN
        report |= {name: kept.report[name] for name in still}
    engines = {engine.entry.file: engine.origin for engine in result.engines}
    origins = {**_origins(job, result, standing, writer), "engines": dict(sorted(engines.items()))}
    report["made_from"] = dict(sorted(origins.items()))
    result.report = report
    file = writer.folder(result.budget.name) / REPORT
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _origins(job: ExportJob, result: BudgetResult, standing: Standing, writer: BundleWriter) -> dict[str, Origin]:
    """Of model and evidence."""
    if result.kept is not None:
        kept = result.kept.report["made_from"]
        return {name: kept[name] for name in ("model", "evidence")[: 1 + job.options.verify]}
    budget, checkpoint = result.budget, checkpoint_digest(job, writer.sources(job.checkpoint.shards))
    origins = {"model": origin_of_model(job, budget, checkpoint)}
    if result.verification is not None:
        files, limits = writer.graph_entries(budget.name), standing.limits(budget.name)
        origins["evidence"] = origin_of_evidence(job, budget.name, files, checkpoint, limits)
    return origins
