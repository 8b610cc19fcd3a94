"""Verifies a bundle where it lies: every file's digest, then every budget's golden run. No torch, no parent.

The ONNX file runs on the CPU in float32 arithmetic (twin.py) against the reference's float32 logits and states; an
engine runs where there is a card of its class. What was not run is listed with its reason and never counts as verified.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from elastic_runtime.bundle import Bundle, check_file
from elastic_runtime.errors import BuildError, ElasticError, InputError
from elastic_runtime.golden import Golden, read_golden
from elastic_runtime.manifest import BudgetEntry, EngineEntry, Status
from elastic_runtime.manifest_reader import DamageError, read_manifest
from elastic_runtime.memory import Card, find_card
from elastic_runtime.open_onnx import open_onnx
from elastic_runtime.paths import inside
from elastic_runtime.preflight import UnavailableError
from elastic_runtime.records import encode
from elastic_runtime.replay import BOUNDS, Replay, replay

Say = Callable[[str], None]


def _ignore(text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Outcome:
    """Of one model or engine file: `replay` where it was run, else why it was not; `error` where running it failed.

    `status` is what a manifest may say of an engine from now on.
    """

    file: str
    replay: Replay | None = None
    not_run: str = ""
    error: str = ""
    status: Status | None = None

    @property
    def failed(self) -> bool:
        """It was run, or tried, and is wrong."""
        return bool(self.error) or (self.replay is not None and not self.replay.passed)

    def text(self) -> str:
        """One line."""
        if self.not_run or self.error:
            return f"{self.file}: {'not run: ' + self.not_run if self.not_run else 'FAILED: ' + self.error}"
        assert self.replay is not None
        return f"{self.file}: {'ok' if self.replay.passed else 'FAILED'}: {self.replay.text()}"


@dataclass(frozen=True)
class Verified:
    """The whole verification. `damaged` names every file that is not the one that was written, with what is wrong."""

    bundle: str
    files: int
    damaged: tuple[str, ...]
    unlisted: tuple[str, ...]
    models: tuple[Outcome, ...] = ()
    engines: tuple[Outcome, ...] = ()
    require_engine: bool = False

    @property
    def passed(self) -> bool:
        """No file is damaged, nothing that was run is wrong, and what must run was run."""
        missing = self.require_engine and (not self.engines or any(o.not_run for o in self.engines))
        return not self.damaged and not missing and not any(o.failed for o in (*self.models, *self.engines))

    def text(self) -> str:
        """For people: a line a fact, the verdict last."""
        lines = [f"{self.bundle}: {self.files} files, {len(self.damaged) or 'none'} damaged"]
        lines += [f"  {text}" for text in self.damaged]
        lines += [f"  not in the manifest, ignored: {name}" for name in self.unlisted]
        lines += [f"  {outcome.text()}" for outcome in (*self.models, *self.engines)]
        if self.require_engine and any(o.not_run for o in self.engines):
            lines.append("  an engine was required to run and was not")
        return "\n".join([*lines, "verified" if self.passed else "NOT VERIFIED"])

    def to_json(self) -> str:
        """The same for programs: `passed`, and the fields of this record and of those in it."""
        return json.dumps({"passed": self.passed, **encode(self)}, indent=1, ensure_ascii=False)


def verify_bundle(
    path: Path, *, require_engine: bool = False, say: Say = _ignore, external: Path | None = None
) -> Verified:
    """Verify a bundle.

    Args:
        path: its folder.
        require_engine: whether an engine that was not run is a failure.
        say: hears what is being done.
        external: the folder of the parent's shards where the bundle only names them.

    Raises:
        InputError: not a bundle, or one of another version. Damage is no error here but in the result.
    """
    try:
        manifest = read_manifest(path)
    except DamageError as error:
        return Verified(str(path), 1, (str(error),), (), require_engine=require_engine)
    bundle = Bundle(path, manifest, external)
    say(f"{path}: reading {len(manifest.files)} files")
    result = Verified(
        str(path), len(manifest.files) + 1, _damage(bundle), _unlisted(bundle), require_engine=require_engine
    )
    if result.damaged:
        return result
    models, engines = [], []
    for budget in bundle.budgets:
        say(f"{budget.name}: replaying its golden run on the CPU")
        models.append(_model(bundle, budget))
        engines += [_engine(bundle, budget, engine, say) for engine in budget.engines]
    return replace(result, models=tuple(models), engines=tuple(engines))


def _damage(bundle: Bundle) -> tuple[str, ...]:
    """What is wrong with each file that is not as it was written."""
    found = []
    for entry in bundle.manifest.files:
        try:
            check_file(inside(bundle.path, entry.path, entry.path), entry, "digests")
        except (ElasticError, OSError) as error:
            found.append(str(error))
    for entry in bundle.manifest.external_weights if bundle.external else ():
        try:
            check_file(bundle.external / entry.path, entry, "digests")  # type: ignore[operator]  # not None here
        except (ElasticError, OSError) as error:
            found.append(str(error))
    return tuple(found)


def _unlisted(bundle: Bundle) -> tuple[str, ...]:
    known = {entry.path for entry in bundle.manifest.files} | {"manifest.json"}
    there = (file.relative_to(bundle.path).as_posix() for file in bundle.path.rglob("*") if file.is_file())
    return tuple(sorted(name for name in there if name not in known))


def _model(bundle: Bundle, budget: BudgetEntry) -> Outcome:
    if budget.golden is None:
        return Outcome(budget.model, not_run="the bundle has no golden run of it (exported with --no-verify)")
    if bundle.manifest.external_weights and bundle.external is None:
        return Outcome(budget.model, not_run="the bundle does not hold its weights; name their folder")
    try:
        golden = read_golden(bundle.path / budget.golden)
        backend = open_onnx(bundle, budget, context=_context(golden), max_tokens=int(golden.tokens.max()))
    except BuildError as error:  # a package or memory that is not there
        return Outcome(budget.model, not_run=str(error))
    except InputError as error:
        return Outcome(budget.model, error=str(error))
    try:
        return Outcome(budget.model, replay(backend, golden, BOUNDS["twin"]))
    except ElasticError as error:
        return Outcome(budget.model, error=str(error))
    finally:
        backend.close()


def _context(golden: Golden) -> int:
    """Positions that the run touches, padding included."""
    return int((golden.position.max(axis=1) + golden.tokens).max())


def _engine(bundle: Bundle, budget: BudgetEntry, engine: EngineEntry, say: Say) -> Outcome:
    card = find_card()
    reason = _why_not(bundle, budget, engine, card)
    if reason or card is None or budget.golden is None:
        return Outcome(engine.file, not_run=reason)
    from elastic_runtime.open import Request  # noqa: PLC0415
    from elastic_runtime.open_tensorrt import open_engine  # noqa: PLC0415

    say(f"{budget.name}: replaying its golden run on {card.name}")
    try:
        golden = read_golden(bundle.path / budget.golden)
        batch = min(engine.max_batch, len(golden.ids))
        backend = open_engine(bundle, budget, engine, Request(batch=batch), card, say=say)
    except UnavailableError as error:
        return Outcome(engine.file, not_run=str(error))
    except ElasticError as error:
        return Outcome(engine.file, error=str(error))
    try:
        found = replay(backend, golden, BOUNDS[bundle.manifest.precision])
    except ElasticError as error:
        return Outcome(engine.file, error=str(error))
    finally:
        backend.close()
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Outcome(engine.file, found, status=Status("verified", card.name, today) if found.passed else None)


def _why_not(bundle: Bundle, budget: BudgetEntry, engine: EngineEntry, card: Card | None) -> str:
    """Why an engine cannot run here; empty where it can."""
    classes = ", ".join(engine.compute_capabilities)
    if budget.golden is None:
        return "the bundle has no golden run of it (exported with --no-verify)"
    if bundle.manifest.external_weights and bundle.external is None:
        return "the bundle does not hold its weights; name their folder"
    if card is None:
        return f"no NVIDIA card here; it needs one of compute capability {classes}"
    if card.compute_capability not in engine.compute_capabilities:
        return f"{card.name} has compute capability {card.compute_capability}; it needs {classes}"
    return ""
