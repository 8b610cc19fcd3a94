"""The verification in an export: for all engines of the bundle, and without a bundle where it fails."""

from __future__ import annotations

from collections.abc import Sequence

from elastic_export.bundle.results import BudgetResult
from elastic_export.bundle.run_record import machine
from elastic_export.bundle.versions import versions
from elastic_export.bundle.writer import BundleWriter
from elastic_export.layers.budget import Budget
from elastic_export.plan.job import ExportJob
from elastic_export.progress import Gauge, Progress
from elastic_export.verify.plan import Plan, make_plan
from elastic_export.verify.report import report_of
from elastic_export.verify.verify import Subject, make_oracle, require_passed, verify_budgets
from elastic_export.weights.modes import Weights
from elastic_runtime.format.golden import write_golden
from elastic_runtime.format.safetensors import itemsize


def prove(
    job: ExportJob, results: Sequence[BudgetResult], weights: Weights, writer: BundleWriter, progress: Progress
) -> None:
    """Verify the files of all budgets and write the golden run of each beside it.

    Raises:
        BuildError: one failed; its report lies in OUT.failed.json.
    """
    subjects = [
        Subject(result.budget, result.emitted, weights.source(result.budget), _plan(job, result.budget, writer))
        for result in results
    ]
    oracle, size = make_oracle(job.checkpoint, job.precision), itemsize(job.checkpoint.dtype)
    progress.watch(Gauge(size * oracle.elements, lambda: size * oracle.passed))
    verifications = verify_budgets(oracle, subjects)
    for result, verification in zip(results, verifications, strict=True):
        name = result.budget.name
        if not verification.passed:
            writer.fail(report_of(verification, budget=name, versions=versions(job.product)) | {"where": machine()})
        require_passed(verification)
        write_golden(writer.folder(name) / "golden.safetensors", verification.golden)
        result.verification = verification


def _plan(job: ExportJob, budget: Budget, writer: BundleWriter) -> Plan:
    """The calls of a budget. One golden run serves all its engines, those that stay from an older export too: its calls
    are within the smallest of their limits.
    """
    options, kept = job.options, writer.kept_engines(budget.name, job.asked)
    return make_plan(
        vocab=job.parent.vocab_size,
        max_tokens=min([options.max_tokens, *(engine.max_tokens for engine in kept)]),
        max_context=min([*options.max_contexts, *(engine.max_context for engine in kept)]),
    )
