"""`--add`: what an export keeps of the bundle that stands where it writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from elastic_runtime.errors import InputError
from elastic_runtime.manifest import BudgetEntry, EngineEntry, FileEntry, Manifest

_SAME = ("demo", "precision", "weight_mode", "logits")


@dataclass(frozen=True)
class Merged:
    """The manifest of both, and which file of the old bundle each kept path comes from."""

    manifest: Manifest
    kept: dict[str, FileEntry]


def merge(old: Manifest, new: Manifest) -> Merged:
    """Add `new` (files filled in) to `old`: budgets and engines that only the old one has are kept.

    An engine is its target and context. A budget of both is the new one with the old one's other engines, which were
    built from the same ONNX file and weights or the request is refused. A kept engine whose file name the new export
    uses for another context gets its context into the name.

    Raises:
        InputError: another checkpoint, or other options than engines and budgets of one bundle can have.
    """
    check_same(old, new)
    new_files, kept = {entry.path: entry for entry in new.files}, dict[str, FileEntry]()
    budgets = []
    for budget in new.budgets:
        before = old.budget(budget.name)
        engines = _kept_engines(old, new, before, budget) if before else []
        kept.update({path: entry for _, path, entry in engines})
        budgets.append(replace(budget, engines=(*budget.engines, *(engine for engine, _, _ in engines))))
    remade = {budget.name for budget in new.budgets}
    budgets += [budget for budget in old.budgets if budget.name not in remade]
    kept.update({e.path: e for e in old.files if e.path not in new_files and e.path.split("/")[0] not in remade})
    files = (*new.files, *(replace(entry, path=path) for path, entry in kept.items()))
    external = {entry.path: entry for entry in (*old.external_weights, *new.external_weights)}
    return Merged(replace(new, budgets=tuple(budgets), files=files, external_weights=tuple(external.values())), kept)


def check_same(old: Manifest, new: Manifest) -> None:
    """Whether `new` may be added to `old`: same weights, same options that hold for a whole bundle. Raises
    InputError.
    """
    if old.checkpoint.fingerprint != new.checkpoint.fingerprint:
        raise _refusal("checkpoint", old.checkpoint.name, f"{new.checkpoint.name}, whose weights differ")
    for name in _SAME:
        if getattr(old, name) != getattr(new, name):
            raise _refusal(name, str(getattr(old, name)), str(getattr(new, name)))
    for entry in (*new.files, *new.external_weights):
        before = next((e for e in (*old.files, *old.external_weights) if e.path == entry.path), None)
        if entry.path.startswith("weights/") and before is not None and before != entry:
            raise _refusal(entry.path, f"sha256 {before.sha256[:12]}…", f"{entry.sha256[:12]}…")


def _kept_engines(
    old: Manifest, new: Manifest, before: BudgetEntry, budget: BudgetEntry
) -> list[tuple[EngineEntry, str, FileEntry]]:
    """(engine with its new path, that path, entry in the old bundle) of the engines that stay."""
    remade = {(engine.target, engine.max_context) for engine in budget.engines}
    staying = [engine for engine in before.engines if (engine.target, engine.max_context) not in remade]
    if staying:
        _check_same_graph(old, new, before, budget)
    taken, result = {entry.path for entry in new.files}, []
    for engine in staying:
        entry = old.file(engine.file)
        assert entry is not None, "the reader has checked that every engine's file is listed"
        path = engine.file
        if path in taken:
            path = str(PurePosixPath(path).with_name(f"{engine.target}.{engine.max_context}.engine"))
        result.append((replace(engine, file=path), path, entry))
    return result


def _check_same_graph(old: Manifest, new: Manifest, before: BudgetEntry, budget: BudgetEntry) -> None:
    for then, now in ((before.model, budget.model), (before.weights, budget.weights)):
        old_file, new_file = (m.file(path) if path else None for m, path in ((old, then), (new, now)))
        if (old_file.sha256 if old_file else None) != (new_file.sha256 if new_file else None):
            raise _refusal(f"budget {budget.name}", f"the {then} of its other engines", "another one")


def _refusal(what: str, expected: str, found: str) -> InputError:
    todo = "leave out --add, or name another output"
    return InputError(f"--add, {what}", expected=f"as in the bundle, {expected}", found=found, todo=todo)
