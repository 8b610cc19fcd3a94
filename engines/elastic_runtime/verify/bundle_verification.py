"""Verifies a bundle where it lies: every file's digest, then every budget's golden run. No torch, no parent.

The ONNX file runs on the CPU in float32 arithmetic (ort/twin.py) against the reference's float32 logits and states; an
engine runs where there is a card of its class. What was not run is listed with its reason and never counts as
verified. A model is not run only where the bundle has no golden run of it or its weights are elsewhere; one that does
not load, or that this machine has no memory or packages for, fails.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from elastic_runtime.backend import Backend
from elastic_runtime.bundle import Bundle, check_external, check_file, check_shard
from elastic_runtime.driver.free_memory import Card, find_card, why_no_card
from elastic_runtime.errors import ElasticError, UnavailableError, is_interrupted
from elastic_runtime.format.forms import AUTO
from elastic_runtime.format.golden import Golden, read_golden
from elastic_runtime.format.manifest import BudgetEntry, EngineEntry, Status
from elastic_runtime.format.manifest_reader import DamageError, read_manifest
from elastic_runtime.format.paths import inside
from elastic_runtime.ort.open_layered import NotLayeredError, open_layered
from elastic_runtime.ort.open_onnx import open_onnx
from elastic_runtime.session_request import Request
from elastic_runtime.tensorrt.engine_cache import cache_folder, forget, remember
from elastic_runtime.verify.replay import BOUNDS, Bounds, Replay, replay, replay_by_layer
from elastic_runtime.verify.verified import Outcome, Verified

Say = Callable[[str], None]
_NOT_ASKED = "another budget was asked for"


def _ignore(text: str) -> None:
    """Nobody listens."""


def verify_bundle(
    path: Path,
    *,
    budget: str = AUTO,
    require_engine: bool = False,
    say: Say = _ignore,
    external: Path | None = None,
    plugins: Path | None = None,
    trust_engine: bool = False,
) -> Verified:
    """Verify a bundle.

    Args:
        path: its folder.
        budget: what to replay: `auto` for all, a budget in all its forms, or one form, such as `6b.int8`. Digests are
            compared of all files.
        require_engine: whether it is a failure that for a budget, target and context no engine was run.
        say: hears what is being done.
        external: the folder of the parent's shards where the bundle only names them.
        plugins: a folder of plugin libraries; without it the installed elastic-plugins serves.
        trust_engine: run the plugin libraries that engines carry, whether elastic-plugins knows them or not.

    Raises:
        InputError: not a bundle, or one of another version; no such budget in it; `external` for a bundle that holds
            its weights. Damage is no error here but in the result.
    """
    try:
        manifest = read_manifest(path)
    except DamageError as error:
        return Verified(str(path), 1, (str(error),), (), require_engine=require_engine)
    check_external(path, manifest, external)
    bundle = Bundle(path, manifest, external)
    asked = bundle.forms(budget)
    files = len(manifest.files) + 1  # the manifest is one as well
    say(f"{path}: reading {files} files")
    result = Verified(str(path), files, _damage(bundle), _unlisted(bundle), require_engine=require_engine)
    if result.damaged:
        return result
    models, engines, request = [], [], Request(plugin_folder=plugins, trust_engine=trust_engine)
    for entry in bundle.budgets:
        if entry not in asked:
            models.append(Outcome(entry.model, not_run=_NOT_ASKED))
            engines += [Outcome(engine.file, not_run=_NOT_ASKED) for engine in entry.engines]
            continue
        say(f"{entry.name}: replaying its golden run on the CPU")
        models.append(_model(bundle, entry, say))
        engines += [_engine(bundle, entry, engine, request, say) for engine in entry.engines]
    return replace(result, models=tuple(models), engines=tuple(engines), alternatives=_alternatives(asked, find_card()))


def _alternatives(budgets: Iterable[BudgetEntry], card: Card | None) -> tuple[tuple[str, ...], ...]:
    """See `Verified`."""
    groups: dict[tuple[str, str, int], list[str]] = {}
    for budget in budgets:
        for engine in budget.engines:
            if card is None or card.compute_capability in engine.compute_capabilities:
                groups.setdefault((budget.name, engine.target, engine.max_context), []).append(engine.file)
    return tuple(map(tuple, groups.values()))


def _damage(bundle: Bundle) -> tuple[str, ...]:
    """What is wrong with each file that is not as it was written."""
    found = []
    for entry in bundle.manifest.files:
        try:
            check_file(inside(bundle.path, entry.path, entry.path), entry, "digests")
        except ElasticError as error:
            found.append(str(error))
    for entry in bundle.manifest.external_weights:
        if bundle.external is None:
            break
        try:
            check_shard(bundle.external, entry, "digests")
        except ElasticError as error:
            found.append(str(error))
    return tuple(found)


def _unlisted(bundle: Bundle) -> tuple[str, ...]:
    known = {entry.path for entry in bundle.manifest.files} | {"manifest.json"}
    there = (file.relative_to(bundle.path).as_posix() for file in bundle.path.rglob("*") if file.is_file())
    return tuple(sorted(name for name in there if name not in known))


def _model(bundle: Bundle, budget: BudgetEntry, say: Say) -> Outcome:
    if reason := _nothing_to_replay(bundle, budget):
        return Outcome(budget.model, not_run=reason)

    def run(golden: Golden) -> Replay:
        try:
            twin = open_layered(bundle, budget)
        except NotLayeredError as error:
            say(f"{budget.name}: {error} It is replayed whole, with all its weights in memory.")
            tokens = int(golden.tokens.max())
            whole = open_onnx(bundle, budget, context=golden.reach, max_tokens=tokens, rows=len(golden.ids))
            return _closing(whole, golden, BOUNDS["twin"])
        return replay_by_layer(twin, golden, BOUNDS["twin"])

    return _outcome(bundle, budget, budget.model, run)


def _closing(backend: Backend, golden: Golden, bounds: Bounds) -> Replay:
    """Replay on a backend that nobody needs afterwards."""
    with closing(backend):
        return replay(backend, golden, bounds)


def _nothing_to_replay(bundle: Bundle, budget: BudgetEntry) -> str:
    """The two reasons that lie in the bundle itself; all others are failures."""
    if budget.golden is None:
        return "the bundle has no golden run of it (exported with --no-verify)"
    if bundle.manifest.external_weights and bundle.external is None:
        return "the bundle does not hold its weights; name their folder"
    return ""


def _outcome(bundle: Bundle, budget: BudgetEntry, file: str, run: Callable[[Golden], Replay]) -> Outcome:
    """What came of the budget's golden run on a file."""
    try:
        return Outcome(file, run(read_golden(inside(bundle.path, str(budget.golden), str(budget.golden)))))
    except Exception as error:  # a file that is sealed but makes no sense fails in ways that no reader foresees
        if is_interrupted(error):  # which says nothing about the file
            raise
        if isinstance(error, UnavailableError):
            return Outcome(file, unavailable=str(error))
        return Outcome(
            file, error=str(error) if isinstance(error, ElasticError) else f"{type(error).__name__}: {error}"
        )


def _engine(bundle: Bundle, budget: BudgetEntry, engine: EngineEntry, request: Request, say: Say) -> Outcome:
    card = find_card()
    reason = _nothing_to_replay(bundle, budget) or _why_not(engine, card)
    if reason or card is None:
        return Outcome(engine.file, not_run=reason)
    from elastic_runtime.tensorrt.open_tensorrt import open_engine  # noqa: PLC0415

    def run(golden: Golden) -> Replay:
        wishes = replace(request, batch=min(engine.max_batch, len(golden.ids)))
        backend = open_engine(bundle, budget, engine, wishes, card, say=say)
        return _closing(backend, golden, BOUNDS[bundle.manifest.precision])

    say(f"{budget.name}: replaying its golden run on {card.name}")
    found = _outcome(bundle, budget, engine.file, run)
    if found.unavailable:  # of an engine that is no failure: it waits for its card
        return Outcome(engine.file, not_run=found.unavailable)
    return _recorded(bundle, engine, card, found)


def _recorded(bundle: Bundle, engine: EngineEntry, card: Card, found: Outcome) -> Outcome:
    """Keep what the card said of the engine, beside its compiled kernels; the bundle stays as it is."""
    folder = cache_folder(None)
    if found.failed:
        forget(folder, bundle.manifest, engine, card.name)
        return found
    status = Status("verified", card.name, datetime.datetime.now(datetime.UTC).date().isoformat())
    remember(folder, bundle.manifest, engine, status)
    return replace(found, status=status)


def _why_not(engine: EngineEntry, card: Card | None) -> str:
    """Why an engine cannot run here; empty where it can."""
    classes = ", ".join(engine.compute_capabilities)
    if card is None:
        reason = why_no_card()
        return f"no NVIDIA card here; it needs one of compute capability {classes}" + (f"; {reason}" if reason else "")
    if card.compute_capability not in engine.compute_capabilities:
        return f"{card.name} has compute capability {card.compute_capability}; it needs {classes}"
    return ""
