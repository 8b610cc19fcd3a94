"""What was built against what was asked for: the same questions as before the build, with the builder's own figures."""

from __future__ import annotations

from collections.abc import Sequence

from elastic_export.bundle.results import BudgetResult
from elastic_export.plan.job import ExportJob
from elastic_runtime.errors import BuildError
from elastic_runtime.fit.vram import gib
from elastic_runtime.format.manifest import EngineEntry


def check_fit(job: ExportJob, result: BudgetResult) -> None:
    """`--require-fit` once more, with the scratch memory that the builder says instead of the estimate."""
    entries = [engine.entry for engine in result.engines if engine.entry.fits.enough is False]
    if job.options.require_fit and entries:
        raise BuildError(
            "--require-fit",
            expected="every engine to fit its card once it is built",
            found=_needs(entries),
            todo="ask for a smaller budget, context or batch",
        )


def check_targets(job: ExportJob, results: Sequence[BudgetResult]) -> None:
    """Whether each target still has an engine that fits it, by the builder's scratch memory instead of the estimate."""
    built = [engine.entry for result in results for engine in result.engines]
    for target in () if job.options.allow_unfit else job.targets:
        entries = [entry for entry in built if entry.target == target.name]
        if all(entry.fits.enough is False for entry in entries):
            raise BuildError(
                f"target {target.name}",
                expected="at least one engine that fits it once it is built",
                found=_needs(entries),
                todo="ask for a smaller budget, context or batch, or keep the bundle all the same with --allow-unfit",
            )


def build_remarks(results: Sequence[BudgetResult]) -> list[str]:
    """What a person should hear of the builds, a line for each remark, with the engines that it is about; of those of
    an older bundle it was said when they were built.
    """
    files: dict[str, list[str]] = {}
    for result in results:
        for engine in result.engines:
            for remark in engine.report.remarks if engine.facts is not None else ():
                files.setdefault(remark, []).append(engine.entry.file)
    return [f"{', '.join(about)}: {remark}" for remark, about in files.items()]


def _needs(entries: Sequence[EngineEntry]) -> str:
    return "; ".join(f"{e.file} needs {gib(e.fits.total)} GiB at {e.max_context} tokens" for e in entries)
