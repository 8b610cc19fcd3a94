"""random_demo.py's model exported for a test, in eight bits or not; torch is imported with the exporter."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

BUDGETS = ("medium", "small")
CONTEXT = 128


def export_demo(out: Path, budgets: Iterable[str], **options: Any) -> None:
    """Write those budgets to `out`, with these options besides."""
    from elastic_export.checkpoint.reader import Checkpoint
    from elastic_export.compile import export
    from elastic_export.plan.job import ExportOptions, plan_job
    from elastic_export.progress import Progress
    from random_demo import random_demo

    more = {"max_contexts": (CONTEXT,), "max_tokens": 16, "ops": "native", "verify": False, **options}
    asked = ExportOptions(",".join(budgets), "rtx5080", out, **more)
    export(plan_job(Checkpoint.open(random_demo()), asked, demo=True), Progress())
