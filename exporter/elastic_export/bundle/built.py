"""The engines of one budget, built into its folder and described for the manifest."""

from __future__ import annotations

from pathlib import Path

from elastic_export.bundle.entries import engine_entry
from elastic_export.bundle.fits import check_fit
from elastic_export.bundle.place import duplicate
from elastic_export.bundle.results import BudgetResult
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.prepare import engine_request
from elastic_export.engine.process import build_engine
from elastic_export.ops.plugins import plugin_of, plugins_of
from elastic_export.plan.job import EngineJob, ExportJob
from elastic_export.progress import Progress
from elastic_runtime.format.manifest import EngineEntry


def build_engines(job: ExportJob, result: BudgetResult, folder: Path, progress: Progress) -> None:
    """Build every engine of the plan from the budget's file; one that fits no card where it must ends it at once.

    Raises:
        BuildError: a build failed, or `--require-fit` and an engine does not.
    """
    for engine in _different(job, result):
        about = f"{', '.join(engine.capabilities)} at {engine.max_context}, {engine.ops}"
        with progress.step("engine", result.budget.name, about):
            result.engines += _build(job, result, engine, folder)
            check_fit(job, result)


def _different(job: ExportJob, result: BudgetResult) -> list[EngineJob]:
    """The engines of the plan; of a sub-model without a layer that a plugin could serve both modes are one."""
    return [e for e in job.engines if e.ops == job.ops.modes[0] or plugins_of("plugin", result.emitted.ops)]


def _build(
    job: ExportJob, result: BudgetResult, engine: EngineJob, folder: Path
) -> list[tuple[EngineEntry, EngineFacts]]:
    """Build once for all targets of the engine; the others are links to the first."""
    first, *others = (folder / engine.file(target) for target in engine.targets)
    request = engine_request(job, result.emitted, engine, first)
    facts = build_engine(request)
    for other in others:
        duplicate(first, other)
    carried = engine.library.entry if request.plugin_library is not None and engine.library is not None else None
    plugin = plugin_of(request.ops, job.product, facts.version, carried)
    return [
        (engine_entry(job, result.emitted, engine, t, facts, result.size, request.ops, plugin), facts)
        for t in engine.targets
    ]
