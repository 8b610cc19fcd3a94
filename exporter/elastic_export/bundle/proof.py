"""The verification of one budget in an export: for all engines of the bundle, and without a bundle where it fails."""

from __future__ import annotations

from elastic_export.bundle.run_record import machine
from elastic_export.bundle.versions import versions
from elastic_export.bundle.writer import BundleWriter
from elastic_export.emit import EmittedModel
from elastic_export.layers.budget import Budget
from elastic_export.plan.job import ExportJob
from elastic_export.verify import (
    Subject,
    Verification,
    make_oracle,
    make_plan,
    report_of,
    require_passed,
    verify_budgets,
)
from elastic_export.weights.modes import Weights
from elastic_runtime.format.golden import write_golden


def prove(
    job: ExportJob, budget: Budget, emitted: EmittedModel, weights: Weights, writer: BundleWriter
) -> Verification:
    """Verify a budget's file and write its golden run beside it.

    One golden run serves all engines of the budget, those that stay from an older export too: its calls are within
    the smallest of their limits.

    Raises:
        BuildError: it failed; its report lies in OUT.failed.json.
    """
    options, kept = job.options, writer.kept_engines(budget.name, job.asked)
    plan = make_plan(
        vocab=job.parent.vocab_size,
        max_tokens=min([options.max_tokens, *(engine.max_tokens for engine in kept)]),
        max_context=min([*options.max_contexts, *(engine.max_context for engine in kept)]),
    )
    oracle = make_oracle(job.checkpoint, job.precision)
    [verification] = verify_budgets(oracle, [Subject(budget, emitted, weights.source(budget), plan)])
    if not verification.passed:
        writer.fail(report_of(verification, budget=budget.name, versions=versions(job.product)) | {"where": machine()})
    require_passed(verification)
    write_golden(writer.folder(budget.name) / "golden.safetensors", verification.golden)
    return verification
