"""Requests: grouped by what can be shared, sized before anything is built, and refused with names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.plan.job import ExportJob, ExportOptions, plan_job
from elastic_runtime.errors import InputError
from synthetic import BUDGETS_12B, NANO_12B, write_checkpoint, write_sparse_checkpoint

ARCH = Architecture("M-*", 61, 24, (40,), (4,), 8, 2, 8, 4, 4, 2, 16, 1e-5, (0.0, math.inf))
BUDGETS = [Budget.full(ARCH, "full"), Budget("half", 16, (20,), (2,), 4, 4, ())]
Plan = Callable[..., ExportJob]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base, weights = tmp_path_factory.mktemp("ckpt"), random_weights(ARCH, np.random.default_rng(0))
    made = {dtype: write_checkpoint(base / dtype, ARCH, weights, BUDGETS, dtype) for dtype in ("bf16", "fp32")}
    made["vectors"] = write_checkpoint(base / "vectors", ARCH, weights, BUDGETS, "bf16", fp32_vectors=True)
    made["12b"] = write_sparse_checkpoint(base / "12b", NANO_12B, BUDGETS_12B)
    return made


@pytest.fixture
def plan(folders: dict[str, Path], tmp_path: Path) -> Plan:
    """`plan("bf16", budgets, targets, **options)`."""

    def make(name: str = "bf16", budgets: str = "all", targets: str = "rtx5080", **options: Any) -> ExportJob:
        options = {"max_contexts": (256,), "max_tokens": 32, "ops": "plugin"} | options
        return plan_job(
            Checkpoint.open(folders[name]), ExportOptions(budgets, targets, tmp_path / "o", **options), demo=False
        )

    return make


@pytest.mark.parametrize(("name", "precision", "width"), [("bf16", None, 2), ("fp32", None, 4), ("bf16", "fp32", 4)])
def test_sizes_are_those_of_the_stored_weights(plan: Plan, name: str, precision: str | None, width: int) -> None:
    job = plan(name, precision=precision, weights="sliced")
    for size, budget in zip(job.sizes, job.budgets, strict=True):
        assert size.weight_bytes == width * budget.architecture(ARCH).parameters() == width * size.parameters
    assert job.precision == (precision or name)


def test_float32_vectors_count_as_such(plan: Plan) -> None:
    heads = 4
    assert plan("vectors").sizes[0].weight_bytes == 2 * ARCH.parameters() + 2 * 3 * heads


def test_fit(plan: Plan) -> None:
    job = plan("12b", targets="rtx5080,rtx5090", max_contexts=(16384,))
    job.check_fit()
    assert job.misfits() == ["12b on rtx5080 at 16384 tokens", "9b on rtx5080 at 16384 tokens"]
    table = job.table()
    assert "12b" in table
    assert "12.31B" in table
    large = plan("12b", "12b", max_contexts=(16384,))
    with pytest.raises(
        InputError, match=r"^target rtx5080: expected at least one budget that fits it, found none of 12b\."
    ):
        large.check_fit()
    replace(large, options=replace(large.options, allow_unfit=True)).check_fit()


def test_the_plan_counts_logits_of_every_token_and_native_mixers(plan: Plan) -> None:
    """ARCH at 32 tokens x 2: 61 logits in BF16 and in float32. Native: 4 heads, 8 channels, a state size of 8."""
    last, every, native = (
        plan(max_batch=2, **more).sizes[0].activation for more in ({}, {"logits": "all"}, {"ops": "native"})
    )
    assert every.at(256) - last.at(256) == 2 * 32 * 61 * (2 + 4)
    mixer = 2 * 32 * 4 * 4 * (2 * 64 + 4 * 8) + 2 * 2 * 4 * 4 * 8 * 8 // 2
    assert native.least == native.bytes + mixer
    assert (last.least, last.per_context_token) == (last.bytes, 0)  # plugins for both
    assert native.per_context_token > 0


def test_normalised_options_name_no_path(plan: Plan, tmp_path: Path) -> None:
    job = plan(max_contexts=(256, 128), logits="all", max_batch=2)
    assert str(tmp_path) not in str(job.normalised())
    assert job.normalised() == {
        "budgets": ("full", "half"),
        "targets": ("rtx5080",),
        "precision": "bf16",
        "weights": "shared",
        "ops": "plugin",
        "max_tokens": 32,
        "max_contexts": (256, 128),
        "max_batch": 2,
        "logits": "all",
        "external_weights": False,
        "verify": True,
    }


def test_another_product_is_planned_and_named_as_such(plan: Plan) -> None:
    """Heads of 16 channels in bfloat16 have a fused kernel with the default product, and a largest context."""
    job = plan(flavour="tensorrt", max_contexts=(1 << 15,))
    assert job.normalised()["flavour"] == "tensorrt"
    assert job.product.experimental
    default = plan(max_contexts=(1 << 14,))
    assert "flavour" not in default.normalised()
    job, default = plan(flavour="tensorrt", max_contexts=(1 << 15,), ops="native"), plan(ops="native")
    assert job.sizes[0].activation.per_context_token > default.sizes[0].activation.per_context_token
    assert job.capabilities == {"rtx5080": ("SM120",)}


REFUSED = [
    ({"flavour": "onnx"}, "--flavour: expected tensorrt-rtx or tensorrt, found 'onnx'"),
    ({"targets": "rtx580"}, r"target 'rtx580': .*Try "),
    ({"budgets": "hlaf"}, r"budget.*hlaf.*half"),
    ({"max_tokens": 0}, r"--max-tokens"),
    ({"max_tokens": 257}, r"--max-tokens: expected at most --max-context \(256\), found 257"),
    ({"max_contexts": ()}, r"--max-context: expected different contexts"),
    ({"max_contexts": (64, 64)}, r"--max-context: expected different contexts, found \(64, 64\)"),
    (
        {"max_contexts": (24561,), "ops": "native"},
        r"--max-context: expected at most 24560 with native ops .* or use --ops plugin, which takes up to 1073741824",
    ),
    ({"max_contexts": (4096, 24561), "ops": "plugin,native"}, r"--max-context: expected at most 24560 with native ops"),
    ({"max_contexts": ((1 << 30) + 1,)}, r"--max-context: expected at most 1073741824 with plugin ops"),
    ({"max_batch": 0}, r"--max-batch"),
    ({"precision": "fp32"}, r"--precision: expected bf16"),
    ({"external_weights": True, "weights": "embedded"}, r"--external-weights: expected --weights shared, found"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[str(options) for options, _ in REFUSED])
def test_refusals(plan: Plan, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(**options)


def test_a_12b_is_not_embedded(plan: Plan) -> None:
    with pytest.raises(
        InputError, match=r"^--weights embedded: expected at most 1610612736 bytes of weights, found \d+ in 12b\."
    ):
        plan("12b", weights="embedded")


def test_float32_attention_has_no_limit_of_context(plan: Plan) -> None:
    assert plan("fp32", max_contexts=(65536,)).engines[0].max_context == 65536


def test_a_state_the_plugin_has_no_room_for(tmp_path: Path) -> None:
    """Refused before anything is built, but for budgets without such a layer."""
    wide = replace(ARCH, ssm_state=300)
    budgets = [Budget.full(wide, "full"), Budget("plain", 24, (40,), (4,), 8, 4, (0,))]
    write_sparse_checkpoint(tmp_path / "wide", wide, budgets, shards=1)
    checkpoint, out = Checkpoint.open(tmp_path / "wide"), tmp_path / "out"

    def plan(names: str, ops: Any) -> ExportJob:
        options = ExportOptions(names, "rtx5080", out, ops=ops, max_tokens=8, max_contexts=(64,))
        return plan_job(checkpoint, options, demo=False)

    with pytest.raises(InputError, match=r"^--ops plugin: expected a state size of 1 to 256, found 300\. Use --ops"):
        plan("all", "plugin")
    plan("all", "native")
    plan("plain", "plugin")
    assert not out.exists()


def test_contexts_that_native_engines_do_not_take_are_plugin_engines_alone(plan: Plan) -> None:
    """`auto` without a library builds a native engine beside each plugin engine, but for those."""
    job = plan(max_contexts=(131072, 4096), ops="auto")
    assert [(engine.max_context, engine.ops) for engine in job.engines] == [
        (4096, "plugin"), (4096, "native"), (131072, "plugin"),
    ]  # fmt: skip
    assert job.asked("half") == {
        ("rtx5080", 4096, "plugin"),
        ("rtx5080", 4096, "native"),
        ("rtx5080", 131072, "plugin"),
    }
    assert any("up to 24560 tokens, which is all that native attention takes" in said for said in job.said)
    job = plan(max_contexts=(131072,), ops="auto")
    assert [(engine.max_context, engine.ops, engine.word) for engine in job.engines] == [(131072, "plugin", "")]
    assert job.normalised()["ops"] == "plugin"
    assert any("none of native ops beside them" in said for said in job.said)
