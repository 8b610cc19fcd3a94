"""`--add`, carried out: what add_rules.py keeps of an older bundle is brought into the one that is written there.

Nothing of it is taken unread: each file that stays has the digest that the older manifest gives, or nothing is
published.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from elastic_export.bundle.add_rules import KeptReport, add_to
from elastic_export.bundle.evidence import complete_report, keeps_golden
from elastic_runtime.errors import BuildError, ElasticError, advised
from elastic_runtime.format.digest import file_digest
from elastic_runtime.format.jsonfile import read_json
from elastic_runtime.format.manifest import FileEntry, Manifest

Say = Callable[[str], None]
#: Brings a file of the older bundle into the new one under a path, and gives its entry by the bytes that it has.
Keep = Callable[[Path, str], FileEntry]


def carry_over(previous: Manifest, manifest: Manifest, output: Path, stage: Path, keep: Keep, say: Say) -> Manifest:
    """The manifest of both, its files in the stage.

    Args:
        previous: of the bundle that stands at `output`.
        manifest: of what was made now, its files filled in.
        output: where the older bundle stands.
        stage: where the new one grows.
        keep: takes a file.
        say: hears what cannot stay.

    Raises:
        InputError: the two cannot be one bundle (`add_to`).
        BuildError: a file that stays is damaged.
    """
    added = add_to(previous, manifest, _kept_golden(previous, manifest, output, say))
    for path, entry in added.kept.items():
        old = output / entry.path
        if not old.is_file():
            raise damaged(old, "none")
        placed = keep(old, path)
        if (placed.size, placed.sha256) != (entry.size, entry.sha256):
            raise damaged(old, "a damaged one")
    reports = {report.path: _complete(previous, report, output, stage) for report in added.reports}
    files = tuple(reports.get(entry.path, entry) for entry in added.manifest.files)
    return replace(added.manifest, files=files)


def damaged(path: Path, found: str, todo: str = "export without --add") -> BuildError:
    """Of a file of the older bundle that is not the one of its manifest."""
    return BuildError(str(path), expected="the file of the manifest", found=found, todo=todo)


def _kept_golden(previous: Manifest, manifest: Manifest, output: Path, say: Say) -> set[str]:
    """The budgets whose golden run stays."""
    kept = set()
    for budget in manifest.budgets:
        try:
            if keeps_golden(previous, manifest, budget, output):
                kept.add(budget.name)
            elif budget.golden is None and (before := previous.budget(budget.name)) and before.golden:
                say(f"{budget.name}: its golden run is dropped: it is of other files or larger limits")
        except ElasticError as error:
            raise damaged(output / budget.name, "a damaged golden run") from error
    return kept


def _complete(previous: Manifest, report: KeptReport, output: Path, stage: Path) -> FileEntry:
    """Write into a budget's report what the old one says of what stays."""
    entry, path = previous.file(report.old_path), output / report.old_path
    if entry is None or not path.is_file() or file_digest(path) != (entry.size, entry.sha256):
        raise damaged(path, "a damaged one")
    target = stage / report.path
    with advised("export without --add"):
        whole = complete_report(read_json(target), read_json(path), report.engines, evidence=report.evidence)
    beside = target.with_name(f"{target.name}.whole")  # and not into the file: it may be a link to the old bundle's
    beside.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")
    beside.replace(target)
    return FileEntry(report.path, *file_digest(target))
