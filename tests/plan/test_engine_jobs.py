"""Which engines a request comes to: shared by targets of one compute capability, a context and an ops mode each."""

from __future__ import annotations

from typing import Any

from elastic_export.plan.engine_jobs import EngineJob, engine_jobs
from elastic_export.plan.ops_modes import OpsPlan
from elastic_runtime.fit.targets import select_targets
from elastic_runtime.format.interface import Precision

PLUGIN = OpsPlan(("plugin",), {})


def jobs(
    targets: str, contexts: tuple[int, ...] = (256,), ops: OpsPlan = PLUGIN, precision: Precision = "bf16"
) -> tuple[EngineJob, ...]:
    return engine_jobs(tuple(select_targets(targets)), precision, contexts, ops)


def test_targets_of_one_compute_capability_are_one_engine_per_context() -> None:
    found = jobs("rtx5080,rtx3090,rtx5090", (256, 128))
    assert [([t.name for t in job.targets], job.capabilities, job.max_context) for job in found] == [
        (["rtx5080", "rtx5090"], ("SM120",), 128),
        (["rtx5080", "rtx5090"], ("SM120",), 256),
        (["rtx3090"], ("SM86",), 128),
        (["rtx3090"], ("SM86",), 256),
    ]
    assert found[0].file(found[0].targets[1]) == "rtx5090.128.engine"
    [alone] = jobs("rtx5080")
    assert alone.file(alone.targets[0]) == "rtx5080.engine"


def test_a_portable_target_leaves_out_what_cannot_hold_the_precision() -> None:
    assert "SM75" not in jobs("rtx")[0].capabilities
    assert "SM75" in jobs("rtx", precision="fp16")[0].capabilities


def test_no_two_engines_of_a_target_have_one_file() -> None:
    """The library goes into plugin engines alone; a native one is left out where no native engine has that context."""
    library: Any = object()
    ops = OpsPlan(("plugin", "native"), {("12.0",): library}, native_contexts=frozenset({128}))
    found = jobs("rtx5080,rtx3090", (128, 256), ops)
    names = [(job.file(target), job.library) for job in found for target in job.targets]
    assert names == [
        ("rtx5080.128.engine", library),
        ("rtx5080.128.native.engine", None),
        ("rtx5080.256.engine", library),
        ("rtx3090.128.engine", None),
        ("rtx3090.128.native.engine", None),
        ("rtx3090.256.engine", None),
    ]
