"""What an export will take over from the bundle at its output, for its forecast: a look that reads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from elastic_export.bundle.add_rules import staying_engines
from elastic_export.bundle.digests import Digests, remembering_digests
from elastic_export.bundle.fingerprint import fingerprint
from elastic_export.bundle.output import check_output, os_errors_explained
from elastic_export.bundle.standing import Standing
from elastic_export.layers.budget import Budget
from elastic_export.plan.engine_jobs import EngineJob
from elastic_export.plan.job import ExportJob
from elastic_runtime.format.manifest import FileEntry, Manifest


@dataclass(frozen=True)
class Carried:
    """What need not be made again.

    Attributes:
        folder: the bundle; None where none stands at the output.
        budgets: names of those whose ONNX file, weights and evidence stay.
        engines: of each budget that is asked for, those that stay.
        besides: names of budgets that are not asked for and stay (`--add`).
        others: of budgets that are asked for, how many engines stay that are not (`--add`).
        quantised: whether the parent in eight bits stays.
        unread: bytes of files, the checkpoint's shards among them, that are read to see whether all that is so.
    """

    folder: Path | None = None
    budgets: frozenset[str] = frozenset()
    engines: Mapping[str, tuple[EngineJob, ...]] = field(default_factory=dict)
    besides: tuple[str, ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    quantised: bool = False
    unread: int = 0

    def made(self, job: ExportJob) -> tuple[Budget, ...]:
        """The budgets that are made."""
        return tuple(budget for budget in job.budgets if budget.name not in self.budgets)

    def built(self, job: ExportJob, budget: Budget) -> tuple[EngineJob, ...]:
        """The engines of a budget that are built."""
        stay = self.engines.get(budget.name, ())
        return tuple(engine for engine in job.engines_of(budget) if engine not in stay)

    def text(self, job: ExportJob) -> str:
        """A line for people; empty where no bundle stands there."""
        if self.folder is None:
            return ""
        parts = [text for budget in job.budgets if (text := self._of(job, budget))]
        parts += ["the parent in eight bits"] if self.quantised else []
        others = [f"{count} engine{'s' * (count > 1)} of {name}" for name, count in self.others.items()]
        besides = ", ".join((*self.besides, *others))
        parts += [f"{besides}, not asked for"] if besides else []
        return f"carried over from {self.folder}: {'; '.join(parts) or 'nothing'}"

    def document(self, job: ExportJob) -> dict[str, Any]:
        """The same for programs."""
        files = [
            f"{name}/{engine.file(target)}"
            for name, stay in self.engines.items()
            for engine in stay
            for target in engine.targets
        ]
        budgets = [budget.name for budget in job.budgets if budget.name in self.budgets]
        return {"budgets": [*budgets, *self.besides], "engines": files, "quantised_parent": self.quantised}

    def _of(self, job: ExportJob, budget: Budget) -> str:
        whole, stay = len(job.engines_of(budget)), len(self.engines.get(budget.name, ()))
        count = f"{stay} of its {whole}" if stay < whole else f"its {whole}"
        engines = "its engine" if stay == whole == 1 else f"{count} engines"
        if budget.name in self.budgets:
            return f"{budget.name} with {engines}" if stay else f"{budget.name} without an engine"
        return f"of {budget.name} {engines}" if stay else ""


def carried_over(job: ExportJob) -> Carried:
    """What a job takes over, by sizes and a fingerprint where the export reads: it may find a file damaged, or weights
    that differ where nobody looks at once, and make more again.

    Raises:
        InputError: as `check_output` does, or the job cannot be added to what stands there (`Standing.quantised`).
    """
    options, protect = job.options, () if job.demo else (job.checkpoint.path,)
    with os_errors_explained(options.output):
        folder, manifest = check_output(options.output, force=options.force, protect=protect)
    if manifest is None:
        return Carried()
    besides, others = _not_asked_for(job, manifest) if options.add else ((), {})
    if options.debug:  # which makes everything that is asked for
        return Carried(folder, besides=besides, others=others)
    with remembering_digests(distrust=options.distrust) as digests:
        old = _Glance(job, folder, manifest, digests)
        budgets = frozenset(budget.name for budget in job.budgets if old.model(budget))
        engines = {budget.name: old.engines(budget) for budget in job.budgets}
        quantised = bool(old.quantised)
        unread = old.unread() if budgets or quantised else 0
    return Carried(folder, budgets, engines, besides, others, quantised, unread)


def _not_asked_for(job: ExportJob, manifest: Manifest) -> tuple[tuple[str, ...], dict[str, int]]:
    """What `--add` keeps beside what is asked for, whoever made it: budgets, and of others how many engines."""
    asked = [budget.name for budget in job.budgets]
    staying = {name: len(staying_engines(manifest, name, job.asked(name))) for name in asked}
    besides = tuple(budget.name for budget in manifest.budgets if budget.name not in asked)
    return besides, {name: count for name, count in staying.items() if count}


class _Glance(Standing):
    """The bundle by its files' sizes and its checkpoint's fingerprint."""

    def __init__(self, job: ExportJob, folder: Path, manifest: Manifest, digests: Digests) -> None:
        super().__init__(job, folder, manifest, digests, digests, lambda _: None)
        self._seen: list[Path] = []

    def engines(self, budget: Budget) -> tuple[EngineJob, ...]:
        """Those that stay, also where the ONNX file is made again, from the same, for its evidence."""
        assert self.manifest is not None
        report = self._report(self.manifest.budget(budget.name))
        if report is None or self._other_model(budget, report):
            return ()
        files = self.manifest.files
        return tuple(e for e in self._job.engines_of(budget) if self.engine(budget.name, e, files))

    def unread(self) -> int:
        """Bytes of what was looked at, and of the shards, whose digests nobody remembers."""
        files = {*self._seen, *(shard.resolve() for shard in self._job.checkpoint.shards)}
        return sum(file.stat().st_size for file in files if not self._digests.remembers(file))

    def _same_checkpoint(self, before: str) -> bool:
        return self._fingerprint_agrees

    @cached_property
    def _fingerprint_agrees(self) -> bool:
        assert self.manifest is not None
        checkpoint = self._job.checkpoint
        return self.manifest.checkpoint.fingerprint == fingerprint(checkpoint.shards, checkpoint.architecture)

    def _sha256(self, path: Path, entry: FileEntry) -> str:
        self._seen.append(path.resolve())
        return entry.sha256
