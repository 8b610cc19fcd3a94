"""Exports over an older bundle, with stand-ins for engines: what incremental/ shares."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elastic_export.bundle import digests
from elastic_export.bundle.unchanged import unchanged
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.compile import ExportResult, export
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.request import EngineRequest
from elastic_export.layers.architecture import Architecture
from elastic_export.plan.job import ExportJob, ExportOptions, plan_job
from elastic_export.progress import Progress
from elastic_runtime.format import digest
from text_engine import text_engine

ARCH = Architecture("M*-", 61, 32, (48,), (4,), 8, 2, 8, 4, 4, 2, 8, 1e-5, (0.0, math.inf))
BUDGETS = {"full": {}, "half": {"hidden_size": 24, "intermediate_size": 32}}
ALL = {"budgets": "all", "targets": "rtx5080"}


@dataclass
class Seen(Progress):
    """What was done and said during an export."""

    built: list[str] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    oversize: tuple[str, ...] = ()
    scratch: int = 2000

    def __post_init__(self) -> None:
        super().__init__()

    def say(self, text: str) -> None:
        self.said.append(text)

    def build(self, request: EngineRequest, **more: object) -> EngineFacts:
        self.built.append(f"{request.output.parent.name}/{request.output.name}")
        text = f"{request.max_tokens} tokens, {request.max_context} rows, {request.compute_capabilities}, "
        text += digest.file_digest(request.onnx)[1]
        return text_engine(request, text, activation_bytes=(1000, self.scratch), oversize=self.oversize)


def write_budgets(folder: Path, budgets: dict[str, Any]) -> None:
    (folder / "elastic_config.json").write_text(json.dumps({"format": "elastic-budgets/1", "budgets": budgets}))


def plan(source: Path, output: Path, **options: Any) -> ExportJob:
    asked = {"max_tokens": 16, "max_contexts": (64,), "ops": "native", "verify": False, **ALL, **options}
    return plan_job(Checkpoint.open(source), ExportOptions(output=output, **asked), demo=False)


def run(source: Path, output: Path, seen: Seen, **options: Any) -> ExportResult:
    """An export as the command line makes it."""
    seen.built.clear(), seen.verified.clear(), seen.said.clear()
    job = plan(source, output, **options)
    with digests.remembering_digests(distrust=job.options.distrust) as ours:
        return unchanged(job, seen, ours) or export(job, seen, digests=ours)


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file each is, and when its bytes were written."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {p.relative_to(folder).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}
