"""A small parent with two budgets, and its export, for the tests of the whole compile."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import Weights, random_weights
from elastic_export.compile import ExportResult, export
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.plan.job import ExportOptions, plan_job
from elastic_export.progress import Progress
from synthetic import write_checkpoint

ARCH = Architecture(
    pattern="M*-M",
    vocab_size=97,
    hidden_size=48,
    ffn_sizes=(72,),
    mamba_heads=(8, 8),
    mamba_head_dim=12,
    ssm_groups=2,
    ssm_state=16,
    conv_kernel=4,
    attention_heads=8,
    kv_heads=2,
    attention_head_dim=16,
    epsilon=1e-5,
    time_step_limit=(0.0, math.inf),
)
SMALL = Budget("small", 40, (72,), (4, 4), 8, 4, (2,))
SIZES: dict[str, Any] = {"max_tokens": 16, "max_contexts": (64,)}


def small_weights() -> Weights:
    """The parent's, float32."""
    return random_weights(ARCH, np.random.default_rng(5))


def write_small(folder: Path, dtype: str = "bf16", **more: Any) -> Path:
    """The parent's checkpoint in two shards."""
    write_checkpoint(folder, ARCH, small_weights(), [Budget.full(ARCH, "full"), SMALL], dtype, 2, **more)
    (folder / "LICENSE").write_text("None.\n")
    return folder


def run(source: Path, output: Path, budgets: str = "small", targets: str = "rtx5080", **options: Any) -> ExportResult:
    """One export; `options` of `ExportOptions`, whose default mode would make one engine or two, as the machine has a
    plugin library or none.
    """
    job = plan_job(
        Checkpoint.open(source),
        ExportOptions(budgets, targets, output, **({"ops": "plugin"} | SIZES | options)),
        demo=False,
    )
    return export(job, Progress())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its path inside."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
