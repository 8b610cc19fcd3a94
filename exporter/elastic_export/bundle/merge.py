"""`elastic-export merge`: bundles of one checkpoint, made apart (one a runner), become one bundle.

What `--add` keeps of an older bundle is decided by add_rules.py; here none is older: what two bundles both have must be
the same, whichever way they are named. A budget's golden run and the checks of its report come from one of the bundles
that have it, since their last bits follow the processor; engines come from all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from elastic_export.bundle.add_rules import check_same, free_name, graph_files, mode_of
from elastic_export.bundle.evidence import complete_report
from elastic_export.bundle.place import duplicate
from elastic_export.bundle.writer import BundleWriter
from elastic_runtime.bundle import check_file
from elastic_runtime.errors import InputError
from elastic_runtime.format.golden import read_golden
from elastic_runtime.format.jsonfile import read_json
from elastic_runtime.format.manifest import BudgetEntry, EngineEntry, FileEntry, Manifest
from elastic_runtime.format.manifest_reader import read_manifest

Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """One of the bundles."""

    folder: Path
    manifest: Manifest


@dataclass(frozen=True)
class _Taken:
    """A file of the bundle to be: which one of which part it is."""

    part: Part
    entry: FileEntry


#: By target, context and ops mode.
_Engines = dict[tuple[str, int, str], tuple[EngineEntry, _Taken]]


@dataclass(frozen=True)
class _Merged:
    """A budget of all parts that have it: its entry, where its files come from, and its report."""

    entry: BudgetEntry
    files: dict[str, _Taken]
    report: dict[str, Any] | None


def merge_bundles(
    folders: Sequence[Path], output: Path, *, force: bool = False, say: Say = lambda text: None
) -> tuple[Path, Manifest]:
    """Write the bundle at `output` that has the budgets and engines of all `folders`; returns where it is and its
    manifest. The bundles stay; their files are linked where the file system allows.

    Raises:
        InputError: a folder is no bundle, two do not belong together, or the output cannot be written.
        DamageError: a file is not the one of its manifest. Nothing was written.
    """
    first, *others = parts = [Part(folder, read_manifest(folder)) for folder in folders]
    for other in others:
        _check_together(first, other)
    for part in parts:
        _check_outside(output, part)
    parts.sort(key=lambda part: part.manifest.to_json())  # whoever names them in another order gets the same bundle
    names = sorted({budget.name for part in parts for budget in part.manifest.budgets})
    merged = [_merge_budget(name, [part for part in parts if part.manifest.budget(name)]) for name in names]
    files = _common_files(parts, names)
    for budget in merged:
        files |= budget.files
    external = {entry.path: entry for part in parts for entry in part.manifest.external_weights}
    manifest = replace(
        parts[0].manifest,
        weight_mode=mode_of(part.manifest for part in parts),
        budgets=tuple(budget.entry for budget in merged),
        files=(),
        external_weights=tuple(external.values()),
    )
    with BundleWriter(output, force=force, protect=folders, say=say) as writer:
        for path, taken in sorted(files.items()):
            source, target = taken.part.folder / taken.entry.path, writer.path / path
            check_file(source, taken.entry, "digests")
            target.parent.mkdir(parents=True, exist_ok=True)
            duplicate(source, target)
            writer.digested(target, taken.entry.sha256)  # just now: 24 GB need not be read twice
        for budget in merged:
            if budget.report is not None and budget.entry.report:
                text = json.dumps(budget.report, indent=1) + "\n"
                (writer.folder(budget.entry.name) / PurePosixPath(budget.entry.report).name).write_text(text, "utf-8")
        return writer.output, writer.finish(manifest)


def _check_together(first: Part, other: Part) -> None:
    """Whether two bundles may be one: the same exporter with the same packages, checkpoint and options."""
    one, two = first.manifest, other.manifest
    for name in sorted({"producer", *one.versions, *two.versions}):
        mine, theirs = (m.producer if name == "producer" else m.versions.get(name, "not installed") for m in (one, two))
        if mine != theirs:
            raise _apart(first, other, name, mine, theirs, "export both with the same versions")
    if one.rules != two.rules:
        raise _apart(first, other, "rules", "the same", "others", "export both with the same versions")
    with _in_words_of_both(first, other):
        check_same(one, replace(two, files=_weights(two)))


def _check_outside(output: Path, part: Part) -> None:
    folder = part.folder.resolve()
    if folder in (output.resolve(), *output.resolve().parents):
        found = f"one in {part.folder}, which is to be merged"
        raise InputError(f"output {output}", expected="a folder of its own", found=found, todo="name another --output")


def _weights(manifest: Manifest) -> tuple[FileEntry, ...]:
    return tuple(entry for entry in manifest.files if entry.path.startswith("weights/"))


@contextmanager
def _in_words_of_both(first: Part, other: Part) -> Iterator[None]:
    """`--add` compares with the bundle that is there; here both are."""
    try:
        yield
    except InputError as error:
        what = error.subject.removeprefix("--add, ")
        expected = error.expected.removeprefix("as in the bundle, ")
        raise _apart(first, other, what, expected, error.found, "merge bundles of one export only") from error


def _apart(first: Part, other: Part, what: str, expected: str, found: str, todo: str) -> InputError:
    return InputError(f"{other.folder}, {what}", expected=f"as in {first.folder}, {expected}", found=found, todo=todo)


def _common_files(parts: Sequence[Part], budgets: Sequence[str]) -> dict[str, _Taken]:
    """What lies in no budget's folder: shards, tokenizer, licences; equal where two have it."""
    found: dict[str, _Taken] = {}
    for part in parts:
        for entry in part.manifest.files:
            if entry.path.split("/")[0] not in budgets:
                _take(found, entry.path, _Taken(part, entry))
    return found


def _take(files: dict[str, _Taken], path: str, taken: _Taken) -> None:
    before = files.setdefault(path, taken)
    _check_equal(before, taken, path)


def _check_equal(before: _Taken, taken: _Taken, what: str) -> None:
    if _bytes(before.entry) != _bytes(taken.entry):
        expected, found = f"sha256 {before.entry.sha256[:12]}…", f"{taken.entry.sha256[:12]}…"
        todo = "export both from the same checkpoint with the same options and versions, or leave one out"
        raise _apart(before.part, taken.part, what, expected, found, todo)


def _bytes(entry: FileEntry) -> tuple[int, str]:
    return entry.size, entry.sha256


def _merge_budget(name: str, parts: Sequence[Part]) -> _Merged:
    """One budget. The part whose golden run serves all engines leads: its run, its report, the options of its file."""
    _check_same_budget(name, parts)
    lead = _lead(name, parts)
    budget = _budget(lead, name)
    own = {engine.file for engine in budget.engines}
    beside = {*own, *([budget.report] if budget.report else [])}
    files = {
        entry.path: _Taken(lead, entry)
        for entry in lead.manifest.files
        if entry.path.split("/")[0] == name and entry.path not in beside
    }
    engines: _Engines = {}
    report = read_json(_report(lead, budget.report)) if budget.report else None
    for part in (lead, *(part for part in parts if part is not lead)):
        moved = _add_engines(name, part, engines)
        other = _budget(part, name)
        if part is not lead and report is not None and other.report:
            report = complete_report(report, read_json(_report(part, other.report)), moved, evidence=False)
    files |= {engine.file: taken for engine, taken in engines.values()}
    return _Merged(replace(budget, engines=tuple(engine for engine, _ in engines.values())), files, report)


def _add_engines(name: str, part: Part, engines: _Engines) -> dict[str, str]:
    """Add a part's engines to those there are; returns old path -> new path of those that were added."""
    moved, paths = dict[str, str](), {engine.file for engine, _ in engines.values()}
    for engine in _budget(part, name).engines:
        key, taken = (engine.target, engine.max_context, engine.ops), _Taken(part, _listed(part, engine.file))
        if key in engines:
            _check_equal(engines[key][1], taken, f"budget {name}, the {key[2]} engine of {key[0]} at {key[1]}")
            continue
        path = free_name(engine, paths)
        engines[key], moved[engine.file] = (replace(engine, file=path), taken), path
    return moved


def _check_same_budget(name: str, parts: Sequence[Part]) -> None:
    first, *others = parts
    mine = graph_files(first.manifest.files, name)
    for other in others:
        theirs = graph_files(other.manifest.files, name)
        for path in sorted({*mine, *theirs}):
            if path not in mine or path not in theirs:
                expected, found = ("one" if path in files else "none" for files in (mine, theirs))
                raise _apart(first, other, path, expected, found, "export both with the same options")
            _check_equal(_Taken(first, mine[path]), _Taken(other, theirs[path]), path)


def _lead(name: str, parts: Sequence[Part]) -> Part:
    """The part whose golden run is within the limits of every engine; the first one where none was verified."""
    verified = [part for part in parts if _budget(part, name).golden]
    engines = [engine for part in parts for engine in _budget(part, name).engines]
    for part in verified:
        golden = read_golden(part.folder / str(_budget(part, name).golden))
        tokens, reach = int(golden.tokens.max()), int((golden.position + golden.tokens[:, None]).max())
        if all(tokens <= engine.max_tokens and reach <= engine.max_context for engine in engines):
            return part
    if verified:
        raise InputError(
            f"budget {name}",
            expected="a golden run within the limits of all its engines",
            found="runs of more tokens than the smallest --max-tokens or --max-context allows",
            todo="export its parts with the same --max-tokens and --max-context",
        )
    return parts[0]


def _budget(part: Part, name: str) -> BudgetEntry:
    budget = part.manifest.budget(name)
    assert budget is not None, "asked of parts that have it"
    return budget


def _report(part: Part, path: str) -> Path:
    """A report that is the manifest's: it is read and written anew, so no later check would find it damaged."""
    check_file(part.folder / path, _listed(part, path), "digests")
    return part.folder / path


def _listed(part: Part, path: str) -> FileEntry:
    entry = part.manifest.file(path)
    assert entry is not None, "the reader has checked that every file of a budget is listed"
    return entry
