"""What `--add` keeps of an older export's verification: its golden run, and what its report says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elastic_export.bundle.add_rules import graph_files
from elastic_runtime.format.golden import read_golden
from elastic_runtime.format.manifest import BudgetEntry, Manifest

#: What belongs to the checks of a report: their figures, the run they made, and with what they ran.
_OF_THE_CHECKS = ("passed", "checks", "run", "versions")


def keeps_golden(old: Manifest, new: Manifest, budget: BudgetEntry, folder: Path) -> bool:
    """Whether the golden run in the old bundle at `folder` still speaks of a budget that was not verified this time.

    ONNX file and weights must be the same bytes, and the run within the limits of the new engines.

    Raises:
        InputError: the old golden file is damaged.
    """
    before = old.budget(budget.name)
    if before is None or before.golden is None or budget.golden is not None:
        return False
    if graph_files(old.files, budget.name) != graph_files(new.files, budget.name):
        return False
    golden = read_golden(folder / before.golden)
    tokens, reach = int(golden.tokens.max()), int((golden.position + golden.tokens[:, None]).max())
    return all(tokens <= engine.max_tokens and reach <= engine.max_context for engine in budget.engines)


def complete_report(
    new: Mapping[str, Any], old: Mapping[str, Any], engines: Mapping[str, str], *, evidence: bool
) -> dict[str, Any]:
    """The new report with what the old one says of the engines that stay (`engines`: old path -> new path), and with
    its checks where the old `evidence` stands for both.
    """
    report = dict(new)
    if evidence:
        report |= {name: old[name] for name in _OF_THE_CHECKS if name in old}
    made = [entry for entry in new["not_run"] if not evidence or entry["check"].endswith(".engine")]
    kept = [{**e, "check": engines[e["check"]]} for e in old.get("not_run", ()) if e["check"] in engines]
    report["not_run"] = sorted([*made, *kept], key=lambda entry: str(entry["check"]))
    built = {engines[file]: facts for file, facts in old.get("engines", {}).items() if file in engines}
    report["engines"] = dict(sorted({**new.get("engines", {}), **built}.items()))
    report["made_from"] = _complete_origins(new.get("made_from", {}), old.get("made_from", {}), engines, evidence)
    return report


def _complete_origins(
    new: Mapping[str, Any], old: Mapping[str, Any], engines: Mapping[str, str], evidence: bool
) -> dict[str, Any]:
    """What the artefacts of both were made from (`made_from`); bundles of older versions do not say."""
    kept = {"evidence": old["evidence"]} if evidence and "evidence" in old else {}
    built = {engines[file]: origin for file, origin in old.get("engines", {}).items() if file in engines}
    return dict(sorted({**new, **kept, "engines": dict(sorted({**new.get("engines", {}), **built}.items()))}.items()))
