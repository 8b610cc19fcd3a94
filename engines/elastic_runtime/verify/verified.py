"""What a verification found, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass

from elastic_runtime.format.manifest import Status
from elastic_runtime.format.records import encode
from elastic_runtime.verify.replay import Replay


@dataclass(frozen=True)
class Outcome:
    """Of one model or engine file: `replay` where it was run; else `not_run` or `unavailable` or `error` says why not.

    `not_run`: there is nothing to run, or no card for an engine. `unavailable`: this machine lacks memory or a package
    for a model. `error`: it was tried and failed. `status` is what may be said of an engine from now on.
    """

    file: str
    replay: Replay | None = None
    not_run: str = ""
    unavailable: str = ""
    error: str = ""
    status: Status | None = None

    @property
    def failed(self) -> bool:
        """It could not be run, or was run and is wrong."""
        return bool(self.error or self.unavailable) or (self.replay is not None and not self.replay.passed)

    def text(self) -> str:
        """One line; of a verified engine with card and day."""
        if self.not_run:
            return f"{self.file}: not run: {self.not_run}"
        if self.unavailable:
            return f"{self.file}: NOT VERIFIED, it cannot run here: {self.unavailable}"
        if self.error or self.replay is None:
            return f"{self.file}: FAILED: {self.error}"
        where = f" on {self.status.card}, {self.status.date}" if self.status else ""
        return f"{self.file}: {'ok' if self.replay.passed else 'FAILED'}{where}: {self.replay.text()}"


@dataclass(frozen=True)
class Verified:
    """The whole verification. `damaged` names every file that is not the one that was written, with what is wrong.

    `alternatives` are the engines for this card, or all where there is none, by what they serve: a budget, a target and
    a context. Where an engine is required, one of each such group has to run: a native engine stands beside a plugin
    engine for machines without a plugin library.
    """

    bundle: str
    files: int
    damaged: tuple[str, ...]
    unlisted: tuple[str, ...]
    models: tuple[Outcome, ...] = ()
    engines: tuple[Outcome, ...] = ()
    require_engine: bool = False
    alternatives: tuple[tuple[str, ...], ...] = ()

    @property
    def passed(self) -> bool:
        """No file is damaged, nothing that was to run failed, and what must run was run."""
        return not self.damaged and not self._missing() and not any(o.failed for o in (*self.models, *self.engines))

    @property
    def replayed(self) -> bool:
        """Whether anything was run at all: right digests alone verify nothing."""
        return any(outcome.replay for outcome in (*self.models, *self.engines))

    def text(self) -> str:
        """For people: a line a fact, the verdict last."""
        lines = [f"{self.bundle}: {self.files} files, {len(self.damaged) or 'none'} damaged"]
        lines += [f"  {text}" for text in self.damaged]
        lines += [f"  not in the manifest, ignored: {name}" for name in self.unlisted]
        lines += [f"  {outcome.text()}" for outcome in (*self.models, *self.engines)]
        lines += [f"  {text}" for text in self._missing()]
        good = "verified" if self.replayed else "digests hold; nothing was replayed"
        return "\n".join([*lines, good if self.passed else "NOT VERIFIED"])

    def _missing(self) -> list[str]:
        """Which engines were required to run and did not; nothing of a damaged bundle, where none was tried."""
        if not self.require_engine or self.damaged:
            return []
        if not self.engines:
            return ["an engine was required, the bundle has none"]
        if not self.alternatives:
            return ["an engine was required, the bundle has none for this card"]
        idle = {outcome.file for outcome in self.engines if outcome.not_run}
        missing = (files for files in self.alternatives if idle.issuperset(files))
        return [f"an engine was required to run and was not: {' or '.join(files)}" for files in missing]

    def to_json(self) -> str:
        """The same for programs: `passed`, `replayed`, and the fields of this record and of those in it."""
        facts = {"passed": self.passed, "replayed": self.replayed, **encode(self)}
        return json.dumps(facts, indent=1, ensure_ascii=False)
