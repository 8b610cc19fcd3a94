"""What every artefact of a bundle was made from, as its budget's report keeps it under `made_from`.

    model     ONNX file, recipe or sliced checkpoint of a budget; the part of it that is the parent's in eight bits too
    evidence  golden run and checks
    engines   by file

Each is a flat object of names and texts, large things by their sha256. An artefact of an older bundle stands for a new
one where all of them agree: then the same code makes it from the same bytes with the same options. So whatever a stage
reads must be named here, and what it does not read must not: a new target is no reason to verify again.

The exporter is named by its sources, not by its version alone: whoever changes a pass expects another graph.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Any

from elastic_export.bundle.add_rules import graph_files
from elastic_export.bundle.fingerprint import encoded
from elastic_export.bundle.versions import versions
from elastic_export.checkpoint.shipped import shipped_digests
from elastic_export.files import MODEL
from elastic_export.layers.budget import Budget
from elastic_export.ops.contract import LIMITS, plugin_folder
from elastic_export.packages import package_folder
from elastic_export.plan.engine_jobs import EngineJob
from elastic_export.plan.job import ExportJob
from elastic_runtime.format.digest import file_digest
from elastic_runtime.format.manifest import FileEntry

Origin = dict[str, str]
#: Of an engine above the bounds on its size or scratch memory: it stands for one of an export that allows that.
OVERSIZE = "oversize"
_SOURCES = {"elastic_export": ("*.py",), "elastic_runtime": ("*.py", "*.toml")}


def origin_of_model(job: ExportJob, budget: Budget, checkpoint: str) -> Origin:
    """Of a budget's ONNX file and weights; `checkpoint` is `checkpoint_digest`."""
    options = job.options
    origin = {
        "checkpoint": checkpoint,
        "budget": _digest(astuple(budget)[1:]),  # its name is that of the folder
        "options": f"{job.precision}, weights {options.weights}, logits {options.logits}, for {job.product.name}",
        **_makers(job),
    }
    if job.eight_bits is not None:
        origin |= origin_of_quantised(job, checkpoint)
    if options.weights == "sliced":  # tokenizer and licence lie beside the shards
        origin["companions"] = _digest([astuple(entry) for entry in shipped_digests(job.checkpoint)])
    return origin


def origin_of_quantised(job: ExportJob, checkpoint: str) -> Origin:
    """Of the files of the parent in eight bits, which are the same whichever budgets slice them: what the origins of
    their models have in common.
    """
    assert job.eight_bits is not None
    stored = _digest([job.precision, astuple(job.eight_bits)])
    return {"checkpoint": checkpoint, "quantised": stored, **_makers(job)}


def origin_of_evidence(
    job: ExportJob, name: str, files: Iterable[FileEntry], checkpoint: str, limits: tuple[int, int]
) -> Origin:
    """Of golden run and checks of the budget `name`, whose files are among `files`; `limits` (max_tokens, max_context)
    decide which calls are made.
    """
    model = [(entry.path, entry.sha256) for entry in graph_files(files, name).values()]
    calls = f"within {limits[0]} tokens and a context of {limits[1]}"
    return {"checkpoint": checkpoint, "model": _digest(sorted(model)), "calls": calls, **_makers(job)}


def origin_of_engine(job: ExportJob, engine: EngineJob, name: str, files: Iterable[FileEntry]) -> Origin:
    """Of an engine of the budget `name`, with the plugin library that goes into it; not its target, as targets of the
    same compute capabilities share an engine, and not the weights, unless they are in it.
    """
    options = job.options
    inside = {f"{name}/{MODEL}", f"{name}/{MODEL}.data"}
    model = sorted((entry.path, entry.sha256) for entry in files if entry.path in inside)
    sizes = f"{options.max_tokens} tokens, context {engine.max_context}, batch {options.max_batch}"
    return {
        "model": _digest(model),
        "options": f"{job.product.name} for {' '.join(engine.capabilities)}, {engine.ops} ops, {sizes}",
        "library": "" if engine.library is None else engine.library.entry.sha256,
        **_makers(job),
    }


def checkpoint_digest(job: ExportJob, shards: Iterable[FileEntry]) -> str:
    """Of all that a budget can be made of: the shards' names and bytes, and what the config says."""
    checkpoint = job.checkpoint
    files = sorted((Path(entry.path).name, entry.size, entry.sha256) for entry in shards)
    return _digest([encoded(checkpoint.architecture), checkpoint.prefix, checkpoint.dtype, checkpoint.config, files])


def serves(made: Mapping[str, str], wanted: Mapping[str, str], *, allow_oversize: bool = False) -> bool:
    """Whether an artefact with the first origin stands for one with the second."""
    return not differing(made, wanted) and (OVERSIZE not in made or allow_oversize)


def differing(made: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """The names that two origins do not agree on."""
    return sorted(name for name in {*made, *wanted} - {OVERSIZE} if made.get(name) != wanted.get(name))


@cache
def exporter_digest() -> str:
    """Of the sources of exporter and runtime, and of the ops' contracts and limits, wherever they are installed."""
    files = [file for name, patterns in _SOURCES.items() for file in _sources(name, patterns)]
    plugins = plugin_folder()
    read = (p for name in ("contract.json", LIMITS) for p in plugins.glob(f"*/{name}"))
    files += [(f"plugins/{p.relative_to(plugins).as_posix()}", p) for p in read]
    return _digest([(name, file_digest(path)[1]) for name, path in sorted(files)])


def _sources(package: str, patterns: Iterable[str]) -> list[tuple[str, Path]]:
    folder = package_folder(package)
    assert folder is not None, package
    found = [file for pattern in patterns for file in folder.rglob(pattern)]
    inside = ((file.relative_to(folder), file) for file in found)
    # A wheel carries the plugins' sources inside the package, a checkout beside it.
    return [(f"{package}/{name.as_posix()}", file) for name, file in inside if name.parts[0] != "plugins"]


def makers_digest(job: ExportJob) -> str:
    """Of exporter and packages."""
    return _digest(_makers(job))


def _makers(job: ExportJob) -> Origin:
    return {"exporter": exporter_digest(), "packages": _digest(versions(job.product))}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
