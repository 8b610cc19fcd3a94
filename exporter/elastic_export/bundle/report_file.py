"""A budget's report.json."""

from __future__ import annotations

import json
from pathlib import Path

from elastic_export.bundle.results import BudgetResult
from elastic_export.bundle.versions import versions
from elastic_export.plan.job import ExportJob
from elastic_export.verify.report import engines_not_run, no_verification, report_of
from elastic_runtime.format.records import encode


def write_report(job: ExportJob, result: BudgetResult, folder: Path) -> None:
    """Write what was verified and what was not, what the builder said, what a conversion took."""
    skipped = engines_not_run([entry.file for entry, _ in result.engines])
    if result.verification is None:
        skipped = [no_verification(), *skipped]
    report = report_of(
        result.verification,
        budget=result.budget.name,
        versions=versions(job.product),
        skipped=skipped,
        engines={entry.file: encode(facts.report()) for entry, facts in result.engines},
        conversion=None if result.conversion is None else result.conversion.report(),
    )
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
