"""Whether the bundle at an export's output is the one that the export would write: then there is nothing to do.

Asked before torch and onnx are imported and before anything is written; no byte of a shard is read whose digest is
remembered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from elastic_export.bundle.add_rules import mode_of, options_of, staying_engines
from elastic_export.bundle.beside import own_path, run_record_file
from elastic_export.bundle.digests import Digests
from elastic_export.bundle.entries import kept_engine_entry, manifest_of
from elastic_export.bundle.fits import check_fit, check_targets
from elastic_export.bundle.output import check_output, os_errors_explained
from elastic_export.bundle.results import BudgetResult, EngineResult, ExportResult
from elastic_export.bundle.staging import recover
from elastic_export.bundle.standing import Standing, standing_of
from elastic_export.bundle.unfinished import tell_what_is_left
from elastic_export.checkpoint.shipped import shipped_digests
from elastic_export.plan.job import ExportJob
from elastic_export.progress import Progress
from elastic_export.weights.quantised import is_quantised_file
from elastic_runtime.errors import ElasticError
from elastic_runtime.format.jsonfile import read_json
from elastic_runtime.format.manifest import BudgetEntry, FileEntry, Manifest, ordered


def unchanged(job: ExportJob, progress: Progress, digests: Digests) -> ExportResult | None:
    """The bundle at the job's output as a result, where every file of it is what this export would write; else None.

    Leftovers of killed exports are cleaned up, as every export does. `progress` hears of those, and of the step; why
    something is made again is said when it is. `digests` are of the shards.

    Raises:
        InputError: the output may not be written, or a shard changed while it was read.
        BuildError: what stands does not fit its cards, as it must (`fits`).
    """
    options, protect = job.options, () if job.demo else (job.checkpoint.path,)
    with os_errors_explained(options.output):
        recover(own_path(options.output), progress.say)
        output, manifest = check_output(options.output, force=options.force, protect=protect)
    if manifest is None or options.debug:
        return None
    with progress.step("compare"), standing_of(job, output, manifest, digests, lambda _: None) as standing:
        budgets = _budgets(job, manifest, standing)
        if budgets is None or not _same(job, manifest, standing, budgets):
            return None
    for result in budgets:
        check_fit(job, result)
    check_targets(job, budgets)
    tell_what_is_left(output, progress.say)
    return ExportResult(options.output, manifest, budgets, _record(output, manifest), job.said, changed=False)


def _budgets(job: ExportJob, manifest: Manifest, standing: Standing) -> tuple[BudgetResult, ...] | None:
    """What the budgets came to, where all that is asked for stands; else None."""
    results = []
    for budget in job.budgets:
        entry, kept = manifest.budget(budget.name), standing.model(budget)
        if entry is None or kept is None:
            return None
        result = BudgetResult(budget, job.size_of(budget), kept, report=kept.report)
        for engine in job.engines_of(budget):
            found = standing.engine(budget.name, engine, manifest.files)
            if found is None:
                return None
            result.engines += [
                EngineResult(
                    kept_engine_entry(job, found.entry, engine, target, result.size),
                    found.report,
                    found.file.size,
                    found.origin,
                )
                for target in engine.targets
            ]
        results.append(result)
    return tuple(results)


def _same(job: ExportJob, manifest: Manifest, standing: Standing, results: tuple[BudgetResult, ...]) -> bool:
    """Whether the manifest that would be written is the one that stands, and every file of it is whole."""
    would, files, external = manifest_of(job, results), manifest.files, manifest.external_weights
    budgets = tuple(_with_kept(job, manifest, budget) for budget in would.budgets)
    if job.options.add:
        budgets += tuple(b for b in manifest.budgets if b.name not in {budget.name for budget in budgets})
    mode = mode_of((would, manifest)) if job.options.add else would.weight_mode
    would = replace(would, weight_mode=mode, budgets=budgets, files=files, external_weights=external)
    would = ordered(replace(would, options=options_of(would)))
    return (
        would.to_json() == manifest.to_json()
        and _same_sources(job, manifest, standing)
        and all(standing.whole(entry) for entry in files)
    )


def _with_kept(job: ExportJob, manifest: Manifest, budget: BudgetEntry) -> BudgetEntry:
    """A budget with what `--add` keeps of it."""
    if not job.options.add:
        return budget
    before = manifest.budget(budget.name)
    assert before is not None, "it has been found there"
    stay = staying_engines(manifest, budget.name, job.asked(budget.name))
    return replace(budget, engines=(*budget.engines, *stay), golden=budget.golden or before.golden)


def _same_sources(job: ExportJob, manifest: Manifest, standing: Standing) -> bool:
    """Whether what the bundle has of the checkpoint's own files, in it or outside, is what the checkpoint has now."""
    options = job.options
    found = {entry.path: entry for entry in shipped_digests(job.checkpoint)}
    plain = any(budget.quantisation is None for budget in manifest.budgets)  # of this export, or of what it adds to
    shards = standing.sources() if manifest.weight_mode == "shared" and plain else ()
    inside, outside = ((), shards) if options.external_weights else (shards, ())
    wanted = {**found, **{f"weights/{e.path}": replace(e, path=f"weights/{e.path}") for e in inside}}
    budgets = {budget.name for budget in manifest.budgets}
    return _outside(manifest.files, budgets) == wanted and set(manifest.external_weights) == set(outside)


def _outside(files: Iterable[FileEntry], budgets: set[str]) -> dict[str, FileEntry]:
    """The files that belong to no budget and are the checkpoint's own (a quantised parent is not)."""
    ours = (entry for entry in files if not is_quantised_file(entry.path))
    return {entry.path: entry for entry in ours if entry.path.split("/")[0] not in budgets}


def _record(output: Path, manifest: Manifest) -> dict[str, Any]:
    """The record of the run that wrote the bundle; empty where that is not there."""
    try:
        record = read_json(run_record_file(output))
    except ElasticError:
        return {}
    mine = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    return record if record.get("manifest_sha256") == mine else {}
