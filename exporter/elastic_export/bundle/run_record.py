"""`OUT.run.json`: when, where, how long and with what an export ran.

Nothing of it is in the bundle, so that equal exports give equal bundles.
"""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastic_export.plan.job import ExportJob
from elastic_runtime.format.manifest import Manifest

if TYPE_CHECKING:
    from elastic_export.bundle.results import BudgetResult

SCHEMA = "elastic-run-record/1"


class RunRecord:
    """Begun with the run, completed by `document` once its bundle is published.

    Args:
        job: what is exported.
        command: the command line, if the run has one.
    """

    def __init__(self, job: ExportJob, command: Sequence[str] = ()) -> None:
        self._job, self._command = job, tuple(command)
        self._begun, self._start = datetime.now(UTC), time.perf_counter()

    def document(
        self, output: Path, manifest: Manifest, results: Sequence[BudgetResult], seconds: Mapping[str, float]
    ) -> dict[str, Any]:
        """The record as plain JSON values. Memory is in bytes: `peak_rss` of this process and of each build.

        Args:
            output: the published bundle.
            manifest: as it was written; `manifest_sha256` tells which bundle the record is of.
            results: of the budgets, in order.
            seconds: by step, of the steps that are about no budget.
        """
        whole = time.perf_counter() - self._start
        return {
            "schema": SCHEMA,
            "begun": self._begun.isoformat(timespec="microseconds"),
            "command": [_text(word) for word in self._command],
            "paths": {
                "bundle": _text(output.resolve()),
                "checkpoint": _text(self._job.checkpoint.path.resolve()),
                "working_folder": _text(Path.cwd()),
            },
            "manifest_sha256": hashlib.sha256(manifest.to_json().encode()).hexdigest(),
            "seconds": _rounded({**seconds, "whole": whole}),
            "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "budgets": [_budget(result) for result in results],
            "machine": machine(),
            "versions": dict(manifest.versions),
        }


def machine() -> dict[str, Any]:
    """What is known of the machine a run is on."""
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }


def _text(name: str | Path) -> str:
    """A name of the system as text, bytes that are no UTF-8 as `\\xff`: what JSON holds, and reads again."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _budget(result: BudgetResult) -> dict[str, Any]:
    """Seconds by step; of an engine that several targets share each has the same figures, of one that was not built
    none.
    """
    built = [
        {"file": engine.entry.file, "seconds": engine.facts.seconds, "peak_rss": engine.facts.peak_rss}
        for engine in result.engines
        if engine.facts is not None
    ]
    return {"name": result.budget.name, "seconds": _rounded(result.seconds), "engines": built}


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in seconds.items()}
