"""The engines of an export: taken from the older bundle, or built side by side, and described for the manifest."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from elastic_export.bundle.entries import engine_entry, kept_engine_entry
from elastic_export.bundle.fits import check_fit
from elastic_export.bundle.made_from import OVERSIZE, Origin, origin_of_engine
from elastic_export.bundle.place import duplicate
from elastic_export.bundle.results import BudgetResult, EngineResult
from elastic_export.bundle.standing import KeptEngine, Standing
from elastic_export.bundle.writer import BundleWriter
from elastic_export.emit import ModelFile, read_model_file
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.prepare import engine_request
from elastic_export.engine.process import build_engine
from elastic_export.engine.request import EngineRequest
from elastic_export.engine.side_by_side import builds_at_once
from elastic_export.files import MODEL
from elastic_export.ops.plugins import plugin_of
from elastic_export.plan.engine_jobs import EngineJob
from elastic_export.plan.job import ExportJob
from elastic_export.progress import Progress
from elastic_runtime.fit.targets import Target


@dataclass(frozen=True)
class _Begun:
    """An engine that is built, for all its targets."""

    engine: EngineJob
    request: EngineRequest
    origin: Origin
    facts: Future[EngineFacts]


def build_engines(
    job: ExportJob, results: Sequence[BudgetResult], standing: Standing, writer: BundleWriter, progress: Progress
) -> None:
    """All engines of the plan, into the folders of their budgets; one that fits no card where it must ends it at once.

    Seconds of a step are those that the export waited: where several engines are built side by side, the builds took
    longer (`EngineFacts.seconds`).

    Raises:
        BuildError: a build failed, or `--require-fit` and an engine does not.
    """
    with _builders(job) as builds:
        begun = [
            [_begin(job, result, engine, standing, writer, builds) for engine in job.engines_of(result.budget)]
            for result in results
        ]
        for result, engines in zip(results, begun, strict=True):
            for engine in engines:
                result.engines += engine if isinstance(engine, list) else _finish(job, result, engine, progress)
                check_fit(job, result)


class _Builds:
    """Builds in threads, a process each."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool, self.stopped = pool, threading.Event()

    def begin(self, request: EngineRequest) -> Future[EngineFacts]:
        """Build it as soon as there is a place for it."""
        return self._pool.submit(build_engine, request, stopped=self.stopped)


@contextmanager
def _builders(job: ExportJob) -> Iterator[_Builds]:
    """Whatever ends the block, nothing is built any more when it has ended."""
    count = job.options.jobs or builds_at_once(weights_inside=job.options.weights == "embedded")
    builds = _Builds(pool := ThreadPoolExecutor(count, "build"))
    try:
        yield builds
    finally:
        builds.stopped.set()
        pool.shutdown(cancel_futures=True)


def _begin(
    job: ExportJob,
    result: BudgetResult,
    engine: EngineJob,
    standing: Standing,
    writer: BundleWriter,
    builds: _Builds,
) -> list[EngineResult] | _Begun:
    """The engine for each of its targets, if the older bundle has it; else its build."""
    name = result.budget.name
    files = writer.graph_entries(name)
    if kept := standing.engine(name, engine, files):
        return [_keep(job, result, engine, target, kept, writer) for target in engine.targets]
    if result.model is None:  # its budget was kept, so nobody had to know it so far
        result.model = _read_model(job, result, writer.folder(name))
    first = writer.folder(name) / engine.file(engine.targets[0])
    request = engine_request(job, result.model, engine, first)
    return _Begun(engine, request, origin_of_engine(job, engine, name, files), builds.begin(request))


def _finish(job: ExportJob, result: BudgetResult, begun: _Begun, progress: Progress) -> list[EngineResult]:
    """Built once for all targets of the engine; the others are links to the first."""
    engine, request = begun.engine, begun.request
    with progress.step(
        "engine", result.budget.name, f"{', '.join(engine.capabilities)} at {engine.max_context}, {engine.ops}"
    ):
        facts = begun.facts.result()
    for target in engine.targets[1:]:
        duplicate(request.output, request.output.with_name(engine.file(target)))
    carried = engine.library.entry if request.plugin_library is not None and engine.library is not None else None
    plugin, origin = plugin_of(request.ops, job.product, facts.version, carried), begun.origin
    if facts.oversize:
        origin = origin | {OVERSIZE: "allowed"}
    assert result.model is not None
    entries = [
        engine_entry(job, result.model, engine, target, facts, result.size, request.ops, plugin)
        for target in engine.targets
    ]
    return [EngineResult(entry, facts.report(), facts.size, origin, facts) for entry in entries]


def _keep(
    job: ExportJob,
    result: BudgetResult,
    engine: EngineJob,
    target: Target,
    kept: KeptEngine,
    writer: BundleWriter,
) -> EngineResult:
    entry = kept_engine_entry(job, kept.entry, engine, target, result.size)
    writer.keep(kept.file, entry.file)
    return EngineResult(entry, kept.report, kept.file.size, kept.origin)


def _read_model(job: ExportJob, result: BudgetResult, folder: Path) -> ModelFile:
    model = result.budget.architecture(job.parent)
    return read_model_file(folder / MODEL, model, precision=job.precision, every_token=job.every_token)
