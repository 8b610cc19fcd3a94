"""The whole compile: elastic checkpoint → parent graph → budget passes → ONNX → engines → verified bundle."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from elastic_export.bundle.built import build_engines
from elastic_export.bundle.destination import writer_of
from elastic_export.bundle.digests import Digests, remembering_digests
from elastic_export.bundle.entries import manifest_of
from elastic_export.bundle.fingerprint import fingerprint
from elastic_export.bundle.fits import build_remarks, check_targets
from elastic_export.bundle.made_from import makers_digest
from elastic_export.bundle.proof import prove
from elastic_export.bundle.report_file import write_report
from elastic_export.bundle.results import BudgetResult, ExportResult
from elastic_export.bundle.run_record import RunRecord
from elastic_export.bundle.standing import standing_of
from elastic_export.bundle.writer import BundleWriter
from elastic_export.checkpoint.shipped import ship_companions
from elastic_export.dumps import dumps_of
from elastic_export.emit import emit_model
from elastic_export.engine.flavour import check_builder
from elastic_export.files import MODEL
from elastic_export.passes.order import sub_model_graph
from elastic_export.plan.job import ExportJob
from elastic_export.progress import Progress, folder_gauge
from elastic_export.trace.trace import trace_parent
from elastic_export.verify.slices import check_slices
from elastic_export.weights.modes import Weights, make_weights


def export(
    job: ExportJob, progress: Progress, *, command: Sequence[str] = (), digests: Digests | None = None
) -> ExportResult:
    """Run a job and publish its bundle in one step; an error anywhere leaves an older bundle as it was.

    `progress` hears of steps and of what a user should know; `command` is the command line, for the run's record.
    `digests` of the shards may have begun, and end here.

    Raises:
        InputError: the output cannot be written or is no bundle.
        BuildError: a build or a verification failed, the disk is full, or what was built does not fit.
        InternalError: a check of our own graph or files failed.
    """
    record = RunRecord(job, command)
    check_builder(job.product, job.capabilities)  # what is missing at the end is said at the beginning
    # The writer first: nobody waits for minutes to hear that he may not write.
    digests = digests or remembering_digests(distrust=job.options.distrust)
    with (
        writer_of(job, progress.say, digests) as writer,
        standing_of(job, writer.output, writer.previous, digests, progress.say) as old,
    ):
        results = [BudgetResult(b, job.size_of(b), old.model(b)) for b in job.budgets]
        made = [result for result in results if result.kept is None]
        with progress.step("weights"):  # before any budget: recipes name these files, verification reads them there
            writer.keep_all(file for result in results if result.kept for file in result.kept.files)
            writer.keep_all(old.quantised)
            weights = make_weights(
                job, writer, lambda: fingerprint(job.checkpoint.shards, job.parent), makers_digest(job)
            )
            weights.place([result.budget for result in made], progress)
        _make_models(job, made, weights, writer, progress)
        if job.options.verify and made:  # in one pass over the parent, and before an engine is built of a wrong file
            with progress.step("verify"):
                prove(job, made, weights, old, writer, progress)
        build_engines(job, results, old, writer, progress)
        for result in results:
            write_report(job, result, old, writer)
            result.seconds |= progress.seconds(result.budget.name)
        progress.say_all(build_remarks(results))
        check_targets(job, results)  # again, by the builder's scratch memory instead of the estimate
        with progress.step("bundle"):  # last: digests are of files that nobody changes any more
            ship_companions(job.checkpoint, writer.path)
            progress.watch(writer.gauge())
            manifest = writer.finish(manifest_of(job, results))
        run = writer.record(record.document(writer.output, manifest, results, progress.seconds()))
    return ExportResult(job.options.output, manifest, tuple(results), run, job.said)


def _make_models(
    job: ExportJob, made: Sequence[BudgetResult], weights: Weights, writer: BundleWriter, progress: Progress
) -> None:
    """The files and weights of budgets that the older bundle does not have."""
    if not made:
        return
    with progress.step("trace"):  # once: budgets are masks, which are inputs of one graph
        parent = trace_parent(job.parent, job.checkpoint.prefix, every_token=job.every_token)
    for result in made:
        _make_model(job, result, parent, weights, writer, progress)


def _make_model(
    job: ExportJob, result: BudgetResult, parent: ir.Model, weights: Weights, writer: BundleWriter, progress: Progress
) -> None:
    """One budget, from the parent's graph to its file and its weights."""
    budget, folder, step = result.budget, writer.folder(result.budget.name), progress.step
    with step("passes", budget.name):
        graph = sub_model_graph(job, budget, parent, weights.stored, dumps_of(job.options, budget.name))
    with step("onnx", budget.name):
        if job.options.weights != "shared":
            progress.watch(folder_gauge(folder, job.size_of(budget).weight_bytes))
        model, file, embed = budget.architecture(job.parent), folder / MODEL, weights.embedded()
        emitted = emit_model(
            graph,
            model,
            file,
            precision=job.precision,
            every_token=job.every_token,
            embed=embed,
            product=job.product,
        )
        check_slices(emitted, job.parent, budget, job.checkpoint.prefix)  # before anybody cuts weights by them
        result.model, result.conversion = emitted, weights.bind(budget, emitted)
        result.rounding = weights.rounding(budget)
        writer.check_graph(budget.name, job.asked(budget.name))
    progress.say_all(result.warnings())
