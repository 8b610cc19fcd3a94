"""The whole compile: elastic checkpoint → parent graph → budget passes → ONNX → engines → verified bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from elastic_export.bundle.entries import budget_entry, engine_entry, manifest_of, versions
from elastic_export.bundle.place import duplicate
from elastic_export.bundle.run_record import RunRecord, machine
from elastic_export.bundle.writer import BundleWriter
from elastic_export.checkpoint.precision import Conversion
from elastic_export.dtypes import DTYPES
from elastic_export.dumps import check_dumps, dump_folder, dump_to
from elastic_export.emit import EmittedModel, emit_model
from elastic_export.engine.facts import EngineFacts
from elastic_export.engine.flavour import check_builder
from elastic_export.engine.process import build_engine
from elastic_export.engine.request import EngineRequest
from elastic_export.graph.facts import clone_with_facts, facts_of
from elastic_export.layers.budget import Budget
from elastic_export.ops.plugins import creators_of, mode_of, plugin_of, plugins_of
from elastic_export.passes import budget_passes, run_passes
from elastic_export.plan.activation import activation_bounds, size_bound
from elastic_export.plan.job import EngineJob, ExportJob
from elastic_export.progress import Progress
from elastic_export.reference import budget_masks
from elastic_export.trace.trace import trace_parent
from elastic_export.verify import (
    Oracle,
    Verification,
    engines_not_run,
    make_oracle,
    make_plan,
    no_verification,
    report_of,
    require_passed,
    verify_budget,
)
from elastic_export.verify.slices import check_slices
from elastic_export.weights.modes import Weights, make_weights
from elastic_runtime.errors import BuildError
from elastic_runtime.fit.vram import BudgetSize, gib
from elastic_runtime.format.golden import write_golden
from elastic_runtime.format.manifest import BudgetEntry, EngineEntry, Manifest
from elastic_runtime.format.records import encode


@dataclass
class BudgetResult:
    """What one budget came to: the summary is made from these."""

    budget: Budget
    emitted: EmittedModel
    size: BudgetSize
    conversion: Conversion | None = None
    verification: Verification | None = None
    engines: list[tuple[EngineEntry, EngineFacts]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportResult:
    """A published bundle, and the record of the run that made it (`OUT.run.json`)."""

    output: Path
    manifest: Manifest
    budgets: tuple[BudgetResult, ...]
    run: Mapping[str, Any]


def export(job: ExportJob, progress: Progress, *, command: Sequence[str] = ()) -> ExportResult:
    """Run a job and publish its bundle in one step; an error anywhere leaves an older bundle as it was.

    Args:
        job: what to export.
        progress: hears of steps and of what a user should know.
        command: the command line, for the record of the run.

    Raises:
        InputError: TensorRT, or a GPU where it needs one, is not there; the output cannot be written or is no bundle.
        BuildError: a build or a verification failed, the disk is full, or what was built does not fit.
        InternalError: a check of our own graph or files failed.
    """
    check_builder(job.product, job.capabilities)
    options, checkpoint, record = job.options, job.checkpoint, RunRecord(job, command)
    protect = () if job.demo else (checkpoint.path,)
    with BundleWriter(
        options.output, force=options.force, add=options.add, protect=protect, say=progress.say
    ) as writer:
        if options.debug:
            check_dumps(options.output)
        writer.check_addable(manifest_of(job, (), versions(job.product)))
        with progress.step("trace"):
            parent = trace_parent(job.parent, checkpoint.prefix, every_token=options.logits == "all")
        with progress.step("weights"):
            weights = make_weights(job, writer)
            weights.place()
        oracle = make_oracle(checkpoint, job.precision)
        results = [
            _compile(job, budget, size, parent, weights, oracle, writer, progress)
            for budget, size in zip(job.budgets, job.sizes, strict=True)
        ]
        for remark in build_remarks(results):
            progress.say(remark)
        _check_targets(job, results)
        with progress.step("bundle"):
            for companion in checkpoint.companions():
                writer.place(companion, companion.name)
            manifest = writer.finish(manifest_of(job, [_entry(job, r) for r in results], versions(job.product)))
        for result in results:
            record.add(result.budget.name, result.seconds, result.engines)
        run = record.document(writer.output, manifest, progress.seconds())
        writer.record(run)
    return ExportResult(options.output, manifest, tuple(results), run)


def _compile(
    job: ExportJob,
    budget: Budget,
    size: BudgetSize,
    parent: ir.Model,
    weights: Weights,
    oracle: Oracle,
    writer: BundleWriter,
    progress: Progress,
) -> BudgetResult:
    """One budget: passes, ONNX, weights, verification, engines, report."""
    folder = writer.folder(budget.name)
    with progress.step("passes", budget.name):
        graph = _narrow(job, budget, parent, weights)
    with progress.step("onnx", budget.name):
        model, every_token = budget.architecture(job.parent), job.options.logits == "all"
        path = folder / "model.onnx"
        embed = weights.embedded()
        emitted = emit_model(graph, model, path, precision=job.precision, every_token=every_token, embed=embed)
        check_slices(emitted, job.parent, budget, job.checkpoint.prefix)
        weights.bind(budget, emitted)
        writer.check_graph(budget.name, job.asked)
    result = BudgetResult(budget, emitted, size, weights.conversion)
    if weights.conversion is not None and (warning := weights.conversion.warning()):
        progress.say(f"{budget.name}: {warning}")
    if job.options.verify:
        with progress.step("verify", budget.name):
            result.verification = _verify(job, budget, emitted, weights, oracle, writer)
            write_golden(folder / "golden.safetensors", result.verification.golden)
    for engine in job.engines:
        with progress.step("engine", f"{budget.name} {', '.join(engine.capabilities)} at {engine.max_context}"):
            result.engines += _build(job, result, engine, folder)
            _check_fit(job, result)
    result.seconds = progress.seconds(budget.name)
    (folder / "report.json").write_text(_report(job, result), encoding="utf-8")
    return result


def _narrow(job: ExportJob, budget: Budget, parent: ir.Model, weights: Weights) -> ir.Model:
    graph = clone_with_facts(parent)
    masks = {name: mask.numpy() for name, mask in budget_masks(job.parent, budget).items()}
    stored = {name: DTYPES[weights.stored(name)].ir for name in facts_of(graph).tensors()}
    dump = dump_to(dump_folder(job.options.output) / budget.name) if job.options.debug else None
    return run_passes(graph, budget_passes(masks, DTYPES[job.precision].ir, stored, job.product), dump)


def _verify(
    job: ExportJob, budget: Budget, emitted: EmittedModel, weights: Weights, oracle: Oracle, writer: BundleWriter
) -> Verification:
    options, kept = job.options, writer.kept_engines(budget.name, job.asked)
    plan = make_plan(  # one golden run for all engines of the budget, those of an older export too
        vocab=job.parent.vocab_size,
        max_tokens=min([options.max_tokens, *(engine.max_tokens for engine in kept)]),
        max_context=min([*options.max_contexts, *(engine.max_context for engine in kept)]),
    )
    verification = verify_budget(oracle, budget, emitted, weights.load(budget), plan)
    if not verification.passed:
        writer.fail(report_of(verification, budget=budget.name, versions=versions(job.product)) | {"where": machine()})
    require_passed(verification)
    return verification


def _build(
    job: ExportJob, result: BudgetResult, engine: EngineJob, folder: Path
) -> list[tuple[EngineEntry, EngineFacts]]:
    """Build once for all targets of the engine; the others are links to the first."""
    options, emitted = job.options, result.emitted
    plugins = plugins_of(options.ops, emitted.ops)
    ops = mode_of(plugins)
    names = [engine.file(target, len(options.max_contexts)) for target in engine.targets]
    request = EngineRequest(
        onnx=emitted.path,
        output=folder / names[0],
        compute_capabilities=engine.capabilities,
        precision=job.precision,
        max_tokens=options.max_tokens,
        max_context=engine.max_context,
        max_batch=options.max_batch,
        ops=ops,
        ports=emitted.ports,
        outputs=(emitted.logits,),
        weights=() if options.weights == "embedded" else emitted.weights,
        plugin_ops=plugins,
        plugin_creators=creators_of(plugins),
        activation_limits=activation_bounds(
            emitted.architecture,
            job.precision,
            ops,
            max_tokens=options.max_tokens,
            max_context=engine.max_context,
            max_batch=options.max_batch,
            every_token=options.logits == "all",
            product=job.product,
        ),
        size_limit=None
        if options.weights == "embedded"
        else size_bound(emitted.architecture, len(engine.capabilities), options.max_batch),
        allow_oversize=options.allow_oversize,
        flavour=job.product.name,
    )
    facts = build_engine(request)
    for name in names[1:]:
        duplicate(folder / names[0], folder / name)
    plugin = plugin_of(ops, job.product, facts.version)
    return [(engine_entry(job, emitted, engine, t, facts, result.size, ops, plugin), facts) for t in engine.targets]


def _check_fit(job: ExportJob, result: BudgetResult) -> None:
    """`--require-fit` once more, with the scratch memory that the builder says instead of the estimate."""
    entries = [entry for entry, _ in result.engines if entry.fits.enough is False]
    if job.options.require_fit and entries:
        raise BuildError(
            "--require-fit",
            expected="every engine to fit its card once it is built",
            found=_needs(entries),
            todo="ask for a smaller budget, context or batch",
        )


def _check_targets(job: ExportJob, results: Sequence[BudgetResult]) -> None:
    """Whether each target still has an engine that fits it, by the builder's scratch memory instead of the estimate."""
    built = [entry for result in results for entry, _ in result.engines]
    for target in () if job.options.allow_unfit else job.targets:
        entries = [entry for entry in built if entry.target == target.name]
        if all(entry.fits.enough is False for entry in entries):
            raise BuildError(
                f"target {target.name}",
                expected="at least one engine that fits it once it is built",
                found=_needs(entries),
                todo="ask for a smaller budget, context or batch, or keep the bundle all the same with --allow-unfit",
            )


def _needs(entries: Sequence[EngineEntry]) -> str:
    return "; ".join(f"{e.file} needs {gib(e.fits.total)} GiB at {e.max_context} tokens" for e in entries)


def build_remarks(results: Sequence[BudgetResult]) -> list[str]:
    """What a person should hear of the builds, a line for each remark, with the engines that it is about."""
    files: dict[str, list[str]] = {}
    for result in results:
        for entry, facts in result.engines:
            for remark in facts.remarks():
                files.setdefault(remark, []).append(entry.file)
    return [f"{', '.join(about)}: {remark}" for remark, about in files.items()]


def _report(job: ExportJob, result: BudgetResult) -> str:
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
    return json.dumps(report, indent=1) + "\n"


def _entry(job: ExportJob, result: BudgetResult) -> BudgetEntry:
    return budget_entry(job, result.budget, result.emitted, result.size, [entry for entry, _ in result.engines])
