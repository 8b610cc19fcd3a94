"""The verification in an export: for all engines of the bundle, and without a bundle where it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from elastic_export.bundle.results import BudgetResult
from elastic_export.bundle.run_record import machine
from elastic_export.bundle.standing import Standing
from elastic_export.bundle.versions import versions
from elastic_export.bundle.writer import BundleWriter
from elastic_export.emit import EmittedModel
from elastic_export.files import GOLDEN
from elastic_export.plan.job import ExportJob
from elastic_export.progress import Gauge, Progress
from elastic_export.verify.plan import make_plan
from elastic_export.verify.report import report_of
from elastic_export.verify.verify import Subject, make_oracle, require_passed, verify_budgets
from elastic_export.weights.modes import Weights
from elastic_runtime.format.golden import write_golden
from elastic_runtime.format.safetensors import itemsize


def prove(
    job: ExportJob,
    results: Sequence[BudgetResult],
    weights: Weights,
    standing: Standing,
    writer: BundleWriter,
    progress: Progress,
) -> None:
    """Verify the files of budgets that were made and write the golden run of each beside it.

    One golden run serves all engines of a budget, those that stay from an older export too: its calls are within the
    smallest of their limits.

    Raises:
        BuildError: one failed; its report lies in OUT.failed.json.
    """
    subjects = []
    for result in results:
        tokens, context = standing.limits(result.budget.name)
        plan = make_plan(vocab=job.parent.vocab_size, max_tokens=tokens, max_context=context)
        source = weights.source(result.budget)
        subjects.append(Subject(result.budget, cast(EmittedModel, result.model), source, plan))
    oracle, size = make_oracle(job.checkpoint, job.precision, job.eight_bits), itemsize(job.checkpoint.dtype)
    progress.watch(Gauge(size * oracle.elements, lambda: size * oracle.passed))
    verifications = verify_budgets(oracle, subjects)
    for result, verification in zip(results, verifications, strict=True):
        name = result.budget.name
        if not verification.passed:
            writer.fail(report_of(verification, budget=name, versions=versions(job.product)) | {"where": machine()})
        require_passed(verification)
        write_golden(writer.folder(name) / GOLDEN, verification.golden)
        result.verification = verification
