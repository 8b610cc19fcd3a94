"""Manifest entries of what an export made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from elastic_export.bundle.consumer_rules import RULES
from elastic_export.bundle.fingerprint import fingerprint
from elastic_export.bundle.versions import versions
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.files import GOLDEN, MODEL, RECIPE, REPORT
from elastic_export.plan.activation import logits_buffer
from elastic_export.plan.engine_jobs import EngineJob
from elastic_export.plan.job import ExportJob
from elastic_export.plan.reckoning import fits, has_scalar_widths, widths
from elastic_runtime.errors import ElasticError, InternalError
from elastic_runtime.fit.targets import Target
from elastic_runtime.format.budget_size import Activation, BudgetSize
from elastic_runtime.format.interface import Alias, OpsMode, StatePort
from elastic_runtime.format.manifest import (
    BudgetEntry,
    Checkpoint,
    EngineEntry,
    InputPort,
    Manifest,
    OutputPort,
    Plugin,
    StateEntry,
    Status,
)
from elastic_runtime.format.manifest_reader import NAME, parse_manifest

if TYPE_CHECKING:  # else `doctor` and `--dry-run` would wait for torch
    from elastic_export.bundle.results import BudgetResult
    from elastic_export.emit import EmittedModel, ModelFile


def engine_entry(
    job: ExportJob,
    model: ModelFile,
    engine: EngineJob,
    target: Target,
    facts: EngineFacts,
    size: BudgetSize,
    ops: OpsMode,
    plugin: Plugin | None,
) -> EngineEntry:
    """One engine file of one target, built in `ops` mode with the plugin library that mode needs."""
    options, activation = job.options, facts.activation_peak
    if job.every_token:  # allocated beside the scratch, so counted with it
        sizes = {"max_tokens": options.max_tokens, "max_batch": options.max_batch}
        activation += logits_buffer(model.architecture, **sizes)
    built = replace(size, activation=Activation(activation))
    inputs, outputs = io_table(model, facts.in_place)
    return EngineEntry(
        target=target.name,
        compute_capabilities=target.capabilities(job.precision),
        file=f"{size.name}/{engine.file(target)}",
        flavour=job.product.name,
        version=facts.version,
        ops=ops,
        plugin=plugin,
        max_context=engine.max_context,
        max_tokens=options.max_tokens,
        max_batch=options.max_batch,
        inputs=inputs,
        outputs=outputs,
        activation=activation,
        activation_measured=False,
        status=Status("built"),
        fits=fits(built, target, context=engine.max_context, batch=options.max_batch),
    )


def kept_engine_entry(
    job: ExportJob, before: EngineEntry, engine: EngineJob, target: Target, size: BudgetSize
) -> EngineEntry:
    """One engine file of one target that is taken from the older bundle, where it was perhaps another's of the same
    compute capabilities.
    """
    built = replace(size, activation=Activation(before.activation, before.activation_measured))
    return replace(
        before,
        target=target.name,
        compute_capabilities=target.capabilities(job.precision),
        file=f"{size.name}/{engine.file(target)}",
        status=before.status if before.target == target.name else Status("built"),
        fits=fits(built, target, context=engine.max_context, batch=job.options.max_batch),
    )


def io_table(model: ModelFile, in_place: Mapping[str, str]) -> tuple[tuple[InputPort, ...], tuple[OutputPort, ...]]:
    """The interface of an engine without its weight inputs, which weights.json lists.

    `in_place`: the states that it was built to update in the buffer of their input, input -> output.
    """
    inputs = tuple(InputPort(port.name, port.dtype, port.shape) for port in model.ports)
    logits = OutputPort(model.logits.name, model.logits.dtype, model.logits.shape, None, None)
    return inputs, (logits, *(_state_output(port, in_place) for port in model.states()))


def _state_output(port: StatePort, in_place: Mapping[str, str]) -> OutputPort:
    alias: Alias = "must" if in_place.get(port.name) == port.output else "must_not"
    return OutputPort(port.output, port.dtype, port.shape, port.name, alias)


def budget_entry(job: ExportJob, result: BudgetResult) -> BudgetEntry:
    """One sub-model with its files."""
    size, name, engines = result.size, result.budget.name, tuple(engine.entry for engine in result.engines)
    golden = f"{name}/{GOLDEN}" if job.options.verify else None
    if result.kept is not None:
        return replace(result.kept.entry, golden=golden, engines=engines)
    emitted = cast("EmittedModel", result.model)
    model = emitted.architecture
    return BudgetEntry(
        name=name,
        parameters=model.parameters(),
        pattern=model.pattern,
        layers=len(model.pattern),
        kept_layers=result.budget.kept_layers(job.parent),
        widths=widths(model),
        scalar_widths=has_scalar_widths(model),
        weight_bytes=size.weight_bytes,
        state_bytes=size.state_bytes,
        kv_bytes_per_token=size.kv_bytes_per_token,
        states=tuple(StateEntry(s.input, s.layer, s.runs) for s in emitted.state_slices),
        model=f"{name}/{MODEL}",
        weights=None if job.options.weights == "embedded" else f"{name}/{RECIPE}",
        golden=golden,
        report=f"{name}/{REPORT}",
        engines=engines,
        quantisation=None if job.eight_bits is None else "int8",
    )


def manifest_of(job: ExportJob, results: Sequence[BudgetResult]) -> Manifest:
    """The manifest without its files, which the writer adds."""
    checkpoint, options, found = job.checkpoint, job.options, versions(job.product)
    return Manifest(
        producer=f"elastic-export {found['elastic-export']}",
        demo=job.demo,
        checkpoint=Checkpoint(checkpoint.name, fingerprint(checkpoint.shards, checkpoint.architecture)),
        precision=job.precision,
        weight_mode=options.weights,
        logits=options.logits,
        options=job.normalised(),
        versions=found,
        rules=RULES,
        budgets=tuple(budget_entry(job, result) for result in results),
    )


def check_readable(text: str) -> None:
    """What no consumer would open is not published. Raises InternalError: every part of it was checked or made here."""
    try:
        parse_manifest(text.encode(), NAME)
    except ElasticError as error:
        raise InternalError(error.subject, expected=error.expected, found=error.found) from error
