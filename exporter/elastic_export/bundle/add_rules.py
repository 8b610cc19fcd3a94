"""`--add`: what an export keeps of the bundle that stands where it writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from elastic_export.files import GOLDEN, RECIPE
from elastic_export.products import TENSORRT_RTX
from elastic_export.weights.sliced import INITIALISED
from elastic_runtime.errors import InputError
from elastic_runtime.format.forms import entry_name
from elastic_runtime.format.interface import OpsMode
from elastic_runtime.format.manifest import (
    BudgetEntry,
    EngineEntry,
    FileEntry,
    Manifest,
    Option,
    Quantisation,
    WeightMode,
)

_SAME = ("demo", "precision", "logits")
#: Endings of the files that an engine was built from and is bound to.
_GRAPH = (".onnx", ".onnx.data", ".safetensors", RECIPE)


@dataclass(frozen=True)
class KeptReport:
    """The report of a budget of both: its engines of the old bundle (old path -> new path), and whether the golden run
    and the checks of the old report still speak of the files.
    """

    path: str
    old_path: str
    engines: dict[str, str]
    evidence: bool


@dataclass(frozen=True)
class Added:
    """The manifest of both, which file of the old bundle each kept path comes from, and the reports to complete."""

    manifest: Manifest
    kept: dict[str, FileEntry]
    reports: tuple[KeptReport, ...]


def add_to(old: Manifest, new: Manifest, keeps_golden: Collection[str] = ()) -> Added:
    """Add `new` (files filled in) to `old`: budgets and engines that only the old one has are kept.

    An engine is its target, context and ops mode. A budget of both is the new one with the old one's other engines,
    which were built from the same ONNX file and weights or the request is refused. A kept engine whose file name the
    new export uses for another one gets its context, or that and its mode, into the name. A budget of both that was not
    verified this time keeps the golden run of the old one where `keeps_golden` names it.

    Raises:
        InputError: another checkpoint, or other options than engines and budgets of one bundle can have.
    """
    check_same(old, new)
    new_files, kept, reports = {entry.path: entry for entry in new.files}, dict[str, FileEntry](), list[KeptReport]()
    budgets = []
    for budget in new.budgets:
        before = old.budget(budget.name)
        if before is None:
            budgets.append(budget)
            continue
        engines = _kept_engines(old, new, before, budget)
        kept.update({path: entry for _, path, entry in engines})
        golden = before.golden if budget.name in keeps_golden else None
        if golden is not None:
            kept[golden] = _listed(old, golden)
            budget = replace(budget, golden=golden)  # noqa: PLW2901
        if budget.report and before.report:
            renamed = {entry.path: path for _, path, entry in engines}
            reports.append(KeptReport(budget.report, before.report, renamed, golden is not None))
        budgets.append(replace(budget, engines=(*budget.engines, *(engine for engine, _, _ in engines))))
    remade = {budget.name for budget in new.budgets}
    budgets += [budget for budget in old.budgets if budget.name not in remade]
    kept.update({e.path: e for e in old.files if e.path not in new_files and e.path.split("/")[0] not in remade})
    files = (*new.files, *(replace(entry, path=path) for path, entry in kept.items()))
    external = {entry.path: entry for entry in (*old.external_weights, *new.external_weights)}
    manifest = replace(
        new,
        weight_mode=mode_of((new, old)),
        budgets=tuple(budgets),
        files=files,
        external_weights=tuple(external.values()),
    )
    return Added(manifest, kept, tuple(reports))


def check_same(old: Manifest, new: Manifest) -> None:
    """Whether `new` may be added to `old`: same weights, same options that hold for a whole bundle. Raises
    InputError.
    """
    if old.checkpoint.fingerprint != new.checkpoint.fingerprint:
        raise _refusal("checkpoint", old.checkpoint.name, f"{new.checkpoint.name}, whose weights differ")
    for name in _SAME:
        if getattr(old, name) != getattr(new, name):
            raise _refusal(name, str(getattr(old, name)), str(getattr(new, name)))
    if _has_plain(old) and _has_plain(new) and old.weight_mode != new.weight_mode:
        raise _refusal("weight_mode", old.weight_mode, new.weight_mode)
    for manifest in (old, new):
        _check_names(manifest)
    for name, quantisation in _forms(new):
        same = old.budget(name)
        if same is not None and same.quantisation != quantisation:
            raise _refusal(f"budget {name}", *(kind or old.precision for kind in (same.quantisation, quantisation)))
    then, now = (bool(m.options.get("external_weights")) for m in (old, new))
    if then != now:  # a consumer is told of one place where the shards are
        words = {True: "shards outside the bundle", False: "shards in the bundle"}
        raise _refusal("--external-weights", words[then], words[now])
    for entry in (*_shards(new), *new.external_weights):
        check_same_shard(old, entry)


def unlike_forms(manifest: Manifest) -> tuple[str, ...]:
    """What to say of budgets that the bundle has in forms which are not of one sub-model: whoever asks for such a
    budget gets either. No reason to refuse: of two forms one is made first.
    """
    forms: dict[str, list[BudgetEntry]] = {}
    for entry in manifest.budgets:
        forms.setdefault(entry.budget, []).append(entry)
    return tuple(
        f"budget {name}: {' and '.join(entry.name for entry in entries)} differ in widths or layers; export the older "
        "one again, with --add"
        for name, entries in forms.items()
        if any((entry.kept_layers, entry.widths) != (entries[0].kept_layers, entries[0].widths) for entry in entries)
    )


def check_same_shard(old: Manifest, entry: FileEntry) -> None:
    """Whether a file of the parent may be added to `old`: budgets that stay hold offsets into the one of that path.
    Raises InputError.
    """
    before = next((shard for shard in (*_shards(old), *old.external_weights) if shard.path == entry.path), entry)
    if before != entry:
        raise _refusal(entry.path, f"sha256 {before.sha256[:12]}…", f"{entry.sha256[:12]}…")


def other_quantised_parent(found: str) -> InputError:
    """Of a parent in eight bits that cannot be the one which budgets that stay take slices of."""
    return _refusal("the parent in eight bits", "whose budgets take slices of it", found)


def _forms(manifest: Manifest) -> list[tuple[str, Quantisation | None]]:
    """(name, quantisation) of each budget, of an export that has not begun of those that it is asked for."""
    asked = manifest.options.get("budgets", ())
    kind: Quantisation | None = None if _has_plain(manifest) else "int8"
    made = [(budget.name, budget.quantisation) for budget in manifest.budgets]
    return made or [(str(name), kind) for name in (asked if isinstance(asked, tuple) else ())]


def mode_of(manifests: Iterable[Manifest]) -> WeightMode:
    """The mode of a bundle of them all: how the weights of what is not quantised lie. What is lies in its own file."""
    return next((manifest.weight_mode for manifest in manifests if _has_plain(manifest)), "shared")


def _has_plain(manifest: Manifest) -> bool:
    """Whether an export made budgets that are not quantised, or is to."""
    return manifest.options.get("quantize", "none") != "int8"


def _check_names(manifest: Manifest) -> None:
    """Whether every entry is called as the form that it is: earlier exports called `6b` what is in int8, too, and the
    bundle would have two forms of it in one folder, or one twice.
    """
    for budget in manifest.budgets:
        name = entry_name(budget.budget, budget.quantisation)
        if budget.name != name:
            todo = "export its budgets again, without --add"
            expected = f"budgets called as now, {name} in {budget.quantisation}"
            raise InputError(f"--add, budget {budget.name}", expected=expected, found=budget.name, todo=todo)


def _shards(manifest: Manifest) -> list[FileEntry]:
    return [entry for entry in manifest.files if entry.path.startswith("weights/")]


def staying_engines(old: Manifest, name: str, remade: Collection[tuple[str, int, OpsMode]]) -> tuple[EngineEntry, ...]:
    """The old engines of a budget that an export of these (target, context, ops mode) keeps."""
    before = old.budget(name)
    engines = before.engines if before else ()
    return tuple(e for e in engines if (e.target, e.max_context, e.ops) not in remade)


def check_same_graph(old: Manifest, name: str, files: Iterable[FileEntry]) -> None:
    """Whether a budget's ONNX file and weights are those that its kept engines were built from. Raises InputError."""
    then, now = graph_files(old.files, name), graph_files(files, name)
    different = sorted(path for path in {*then, *now} if then.get(path) != now.get(path))
    if different:
        raise _refusal(f"budget {name}", f"the {different[0]} of its other engines", "another one")


def graph_files(files: Iterable[FileEntry], name: str) -> dict[str, FileEntry]:
    """Path -> entry of a budget's ONNX file and of what says or holds its weights."""
    return {entry.path: entry for entry in files if is_graph_file(entry.path, name)}


def is_graph_file(path: str, name: str) -> bool:
    """Whether the file is a budget's ONNX file, or says or holds its weights."""
    # No engine is built from these, and older bundles lack the second.
    beside = {f"{name}/{GOLDEN}", f"{name}/{INITIALISED}"}
    return path.startswith(f"{name}/") and path.endswith(_GRAPH) and path not in beside


def _kept_engines(
    old: Manifest, new: Manifest, before: BudgetEntry, budget: BudgetEntry
) -> list[tuple[EngineEntry, str, FileEntry]]:
    """(engine with its new path, that path, entry in the old bundle) of the engines that stay."""
    remade = {(engine.target, engine.max_context, engine.ops) for engine in budget.engines}
    staying = staying_engines(old, before.name, remade)
    if staying:
        check_same_graph(old, budget.name, new.files)
    taken, result = {entry.path for entry in new.files}, []
    for engine in staying:
        path = free_name(engine, taken)
        result.append((replace(engine, file=path), path, _listed(old, engine.file)))
    return result


def free_name(engine: EngineEntry, taken: Collection[str]) -> str:
    """The engine's file; where that is `taken`, one whose name says what tells it from the engine that has it."""
    stem, file = f"{engine.target}.{engine.max_context}", PurePosixPath(engine.file)
    names = (engine.file, *(str(file.with_name(f"{name}.engine")) for name in (stem, f"{stem}.{engine.ops}")))
    return next((name for name in names if name not in taken), names[-1])


def _listed(manifest: Manifest, path: str) -> FileEntry:
    entry = manifest.file(path)
    assert entry is not None, "the reader has checked that every file of a budget is listed"
    return entry


def options_of(manifest: Manifest) -> dict[str, Option]:
    """The options as they hold for what the bundle has, however it came about: equal contents, equal options.

    What budgets and engines do not say (`precision`, `logits`, …) is one for the whole bundle, see `check_same`.
    """
    budgets, last = manifest.budgets, manifest.options
    engines = [engine for budget in budgets for engine in budget.engines]
    found: dict[str, Option] = {
        "budgets": tuple(sorted({budget.name for budget in budgets})),
        "targets": tuple(sorted({engine.target for engine in engines})),
        "max_contexts": tuple(sorted({engine.max_context for engine in engines})),
        "max_tokens": _one_or_all({engine.max_tokens for engine in engines}),
        "max_batch": _one_or_all({engine.max_batch for engine in engines}),
        "ops": _one_or_all({engine.ops for engine in engines}),
        "weights": manifest.weight_mode,
        "verify": all(budget.golden is not None for budget in budgets),
    }
    options = {**last, **{name: value for name, value in found.items() if name in last and value != ()}}
    for name in ("flavour", "quantize"):  # said where it is not the default's alone, as `ExportJob.normalised` does
        options.pop(name, None)
    if {engine.flavour for engine in engines} - {TENSORRT_RTX.name}:
        options["flavour"] = _one_or_all({engine.flavour for engine in engines})
    if any(budget.quantisation for budget in budgets):
        options["quantize"] = _one_or_all({budget.quantisation or "none" for budget in budgets})
    return options


def _one_or_all(values: Collection[int] | Collection[str]) -> Option:
    """The value where all agree, else the list of them."""
    ordered = tuple(sorted(values))
    return ordered[0] if len(ordered) == 1 else ordered  # type: ignore[return-value]  # all numbers, or all texts


def _refusal(what: str, expected: str, found: str) -> InputError:
    todo = "leave out --add, or name another output"
    return InputError(f"--add, {what}", expected=f"as in the bundle, {expected}", found=found, todo=todo)
