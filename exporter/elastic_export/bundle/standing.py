"""What an export need not make again: the artefacts of the bundle that stands at its output which are whole and were
made from what this export would make them from (`made_from`).

Whole means: the bytes are read and have the digest that the manifest gives, or, of files so large that digests of them
are remembered (`digest_memo`), have not changed since. Shards that are hard links to the checkpoint's are as whole as
those. Nothing is ever taken on the word of a time alone that is not remembered with its digest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from elastic_export.bundle.add_rules import other_quantised_parent, staying_engines
from elastic_export.bundle.digests import Digests, remembering_digests
from elastic_export.bundle.made_from import (
    Origin,
    checkpoint_digest,
    differing,
    origin_of_engine,
    origin_of_evidence,
    origin_of_model,
    origin_of_quantised,
    serves,
)
from elastic_export.engine.engine_facts import EngineReport
from elastic_export.layers.budget import Budget
from elastic_export.plan.engine_jobs import EngineJob
from elastic_export.plan.job import ExportJob
from elastic_export.weights.quantised import is_quantised_file
from elastic_runtime.errors import ElasticError
from elastic_runtime.format.jsonfile import read_json
from elastic_runtime.format.manifest import BudgetEntry, EngineEntry, FileEntry, Manifest
from elastic_runtime.format.records import decode

#: What a person hears of a name that two origins do not agree on.
_WORDS = {
    "checkpoint": "other weights or another config",
    "budget": "other widths or layers",
    "quantised": "other matrices",
    "options": "other options",
    "companions": "other tokenizer or licence files",
    "exporter": "another exporter",
    "packages": "other versions of packages",
    "model": "other files than were verified",
    "calls": "other limits of the calls that verify it",
    "golden": "it was not verified",
    "made_from": "no report says what it was made from",
}

#: Of these whoever quantises it makes another parent in eight bits.
_OTHER_BYTES = ("checkpoint", "quantised")

#: Of a report, what the next one may have to repeat.
_NEEDED = {"passed", "checks", "run", "conversion", "rounding", "engines"}


@dataclass(frozen=True)
class KeptModel:
    """A budget whose ONNX file, weights and evidence need not be made again: its entry and report in the older bundle,
    and the files of its own that stay: all but engines and report.
    """

    entry: BudgetEntry
    report: Mapping[str, Any]
    files: tuple[FileEntry, ...]


@dataclass(frozen=True)
class KeptEngine:
    """An engine of the older bundle that need not be built again: its entry, what its builder said, its file."""

    entry: EngineEntry
    report: EngineReport
    file: FileEntry
    origin: Origin


@contextmanager
def standing_of(
    job: ExportJob, folder: Path, manifest: Manifest | None, digests: Digests, say: Callable[[str], None]
) -> Iterator[Standing]:
    """The bundle at a job's output. With `--debug` nothing of it is kept: the graph of every budget is to be dumped."""
    with remembering_digests(distrust=job.options.distrust) as own:
        yield Standing(job, folder, None if job.options.debug else manifest, digests, own, say)


class Standing:
    """The bundle at an export's output, asked artefact by artefact.

    Args:
        job: what is exported.
        folder: where the bundle stands.
        manifest: its manifest; None where no bundle stands there, and nothing is kept.
        digests: of the checkpoint's shards.
        own: of the older bundle's files, which may go at any time.
        say: hears why something is made again.
    """

    def __init__(
        self,
        job: ExportJob,
        folder: Path,
        manifest: Manifest | None,
        digests: Digests,
        own: Digests,
        say: Callable[[str], None],
    ) -> None:
        self._job, self.folder, self.manifest, self._say = job, folder, manifest, say
        self._digests, self._own = digests, own
        self._whole: dict[str, bool] = {}

    def limits(self, budget: str) -> tuple[int, int]:
        """Tokens of a call and context of the golden run, which all engines of the budget must be able to make: those
        that are asked for, and with `--add` those that stay beside them.
        """
        options, manifest = self._job.options, self.manifest
        stay = staying_engines(manifest, budget, self._job.asked(budget)) if options.add and manifest else ()
        tokens = min([options.max_tokens, *(engine.max_tokens for engine in stay)])
        return tokens, min([*options.max_contexts, *(engine.max_context for engine in stay)])

    def model(self, budget: Budget) -> KeptModel | None:
        """The budget as it stands, if its ONNX file, weights and, where the job verifies, evidence can stay. Says why
        not.
        """
        entry = self.manifest.budget(budget.name) if self.manifest else None
        report = self._report(entry)
        if entry is None:
            return None
        changed = ["made_from"] if report is None else self._changed(budget, entry, report)
        if report is None or changed:
            self._say_again(budget.name, changed)
            return None
        files = self._files(entry, with_golden=self._job.options.verify)
        sliced = entry.quantisation is None or self.quantised  # what its recipe is of
        return KeptModel(entry, report, files) if self._all_whole(files) and sliced else None

    @cached_property
    def quantised(self) -> tuple[FileEntry, ...]:
        """The files of the parent in eight bits, if the job's budgets slice such files and these can stay, whichever
        budgets they were made for. Says why not.

        All or none: a damaged one is rare, and they are counted and made in one go.

        Raises:
            InputError: with `--add`, where it is known already that they would be others. Of another exporter, or other
                packages, it is not: most changes leave them as they are, so their bytes decide (`BundleWriter.adopt`).
        """
        if self.manifest is None or self._job.eight_bits is None:
            return ()
        files = tuple(file for file in self.manifest.files if is_quantised_file(file.path))
        if files and (changed := self._requantised(self.manifest)):
            if self._job.options.add and (others := [name for name in changed if name in _OTHER_BYTES]):
                raise other_quantised_parent(_WORDS[others[0]])
            self._say_again("the parent in eight bits", changed)
            return ()
        return files if self._all_whole(files) else ()

    def engine(self, budget: str, engine: EngineJob, files: Iterable[FileEntry]) -> KeptEngine | None:
        """An engine, of whatever target, that was built from the same ONNX file (among `files`) and request."""
        entry = self.manifest.budget(budget) if self.manifest else None
        report = self._report(entry)
        if entry is None or report is None or self.manifest is None:
            return None
        wanted, made = origin_of_engine(self._job, engine, budget, files), _objects(report.get("made_from"), "engines")
        for candidate in entry.engines:
            file, origin = self.manifest.file(candidate.file), made.get(candidate.file, {})
            if not serves(origin, wanted, allow_oversize=self._job.options.allow_oversize):
                continue
            said = _said(report, candidate.file)
            if said is not None and file is not None and self.whole(file):
                return KeptEngine(candidate, said, file, origin)
        return None

    def whole(self, entry: FileEntry) -> bool:
        """Whether a file of the bundle has the bytes that the manifest says; a damaged one is named once."""
        if entry.path not in self._whole:
            found = self._found(entry)
            self._whole[entry.path] = found == ""
            if found:
                self._say(f"{self.folder / entry.path}: {found}, so not kept")
        return self._whole[entry.path]

    def sources(self) -> tuple[FileEntry, ...]:
        """The checkpoint's shards by name, with their digests."""
        return tuple(future.result() for future in self._shards.values())

    @cached_property
    def _shards(self) -> dict[Path, Future[FileEntry]]:
        shards = self._job.checkpoint.shards
        return {s: self._digests.of_source(s.resolve(strict=True), s.name, trust=True) for s in shards}

    @cached_property
    def _checkpoint(self) -> str:
        return checkpoint_digest(self._job, self.sources())

    def _changed(self, budget: Budget, entry: BudgetEntry, report: Mapping[str, Any]) -> list[str]:
        """What is not as it was when the budget's model, and its evidence where it is asked for, were made."""
        assert self.manifest is not None
        changed = self._other_model(budget, report)
        if not changed and self._job.options.verify:
            made, limits, files = _objects(report, "made_from"), self.limits(budget.name), self.manifest.files

            def wanted(checkpoint: str) -> Origin:
                return origin_of_evidence(self._job, budget.name, files, checkpoint, limits)

            changed = self._differing(made.get("evidence", {}), wanted) if entry.golden else ["golden"]
        return changed or ([] if report.keys() >= _NEEDED else ["made_from"])

    def _other_model(self, budget: Budget, report: Mapping[str, Any]) -> list[str]:
        """What is not as it was when the budget's ONNX file and weights were made."""
        model = _objects(report, "made_from").get("model", {})
        changed = self._differing(model, lambda checkpoint: origin_of_model(self._job, budget, checkpoint))
        return changed if model else ["made_from"]

    def _requantised(self, manifest: Manifest) -> list[str]:
        """What is not as it was when the parent was quantised, as the report that agrees most has it: each budget in
        eight bits says it, and that of an export before this one, which `--add` left, may speak of another exporter.
        """
        found = list[list[str]]()
        for entry in manifest.budgets:
            if entry.quantisation is not None:
                model = _objects(self._report(entry) or {}, "made_from").get("model", {})
                made = {name: model[name] for name in origin_of_quantised(self._job, "") if name in model}
                changed = self._differing(made, lambda checkpoint: origin_of_quantised(self._job, checkpoint))
                found.append(changed if made else ["made_from"])
        return min(found, key=len, default=["made_from"])

    def _differing(self, made: Origin, wanted: Callable[[str], Origin]) -> list[str]:
        """The names on which an origin and the wanted one, of some checkpoint's digest, do not agree."""
        # Without the checkpoint first: its digests may take a while, and need not where all else has changed anyway.
        before = made.get("checkpoint", "")
        changed = differing(made, wanted(before))
        return changed or ([] if self._same_checkpoint(before) else ["checkpoint"])

    def _same_checkpoint(self, before: str) -> bool:
        return before == self._checkpoint

    def _all_whole(self, files: Iterable[FileEntry]) -> bool:
        """Whether none of them is damaged; all are looked at, so that each that is gets named."""
        return not [file for file in files if not self.whole(file)]

    def _say_again(self, what: str, changed: Iterable[str]) -> None:
        self._say(f"{what}: made again: {', '.join(_WORDS.get(name, name) for name in changed)}")

    def _files(self, entry: BudgetEntry, *, with_golden: bool) -> tuple[FileEntry, ...]:
        assert self.manifest is not None
        others = {entry.report, *(engine.file for engine in entry.engines), None if with_golden else entry.golden}
        inside = [file for file in self.manifest.files if file.path.startswith(f"{entry.name}/")]
        return tuple(file for file in inside if file.path not in others)

    def _report(self, entry: BudgetEntry | None) -> dict[str, Any] | None:
        file = self.manifest.file(entry.report) if self.manifest and entry and entry.report else None
        if file is None or not self.whole(file):
            return None
        try:
            return read_json(self.folder / file.path)
        except ElasticError:
            return None

    def _found(self, entry: FileEntry) -> str:
        """What is wrong with a file; nothing where it is whole."""
        path = self.folder / entry.path
        try:
            if path.is_symlink() or not path.is_file():
                return "missing" if not os.path.lexists(path) else "no plain file"
            if path.stat().st_size != entry.size:
                return "of another size than the manifest says"
            return "" if self._sha256(path, entry) == entry.sha256 else "damaged"
        except OSError as error:
            return error.strerror or "unreadable"

    def _sha256(self, path: Path, entry: FileEntry) -> str:
        same = [shard for shard in self._job.checkpoint.shards if shard.name == path.name and shard.samefile(path)]
        known = self._shards[same[0]] if same else self._own.of_source(path.resolve(), entry.path, trust=True)
        return known.result().sha256


def _objects(value: object, name: str) -> dict[str, Origin]:
    """The objects of texts below `value[name]`; none where anything is not of that form."""
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, dict):
        return {}
    return {key: item for key, item in found.items() if _is_origin(item)}


def _is_origin(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _said(report: Mapping[str, Any], file: str) -> EngineReport | None:
    """What the report has of an engine's build; None where it has nothing that we understand."""
    try:
        return decode(EngineReport, report.get("engines", {}).get(file), file)
    except (ElasticError, AttributeError):
        return None
