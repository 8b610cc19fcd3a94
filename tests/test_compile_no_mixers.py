"""Budgets that keep no Mamba layer, and none that has a state at all, from the checkpoint to `verify`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.compile import ExportResult, export
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.plan.job import ExportOptions, plan_job
from elastic_export.progress import Progress
from elastic_runtime.verify.bundle_verification import verify_bundle
from synthetic import write_checkpoint

ARCH = Architecture("M*-", 97, 48, (72,), (8,), 12, 2, 16, 4, 8, 2, 16, 1e-5, (0.0, math.inf))
FULL = Budget.full(ARCH, "full")
ATTENTION = Budget("attention", 40, (64,), (8,), 12, 4, (0,))
PLAIN = Budget("plain", 40, (64,), (8,), 12, 8, (0, 1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """All three budgets as plugin and as native engines, as by default where there is no library."""
    folder = tmp_path_factory.mktemp("mixers")
    weights = random_weights(ARCH, np.random.default_rng(5))
    write_checkpoint(folder / "tiny", ARCH, weights, [FULL, ATTENTION, PLAIN], "bf16", 1)
    options = ExportOptions("all", "rtx5080", folder / "out", ops="plugin,native", max_tokens=16, max_contexts=(64,))
    return export(plan_job(Checkpoint.open(folder / "tiny"), options, demo=False), Progress())


def test_the_options_speak_of_the_engines_not_of_the_request(exported: ExportResult) -> None:
    assert exported.manifest.options["ops"] == ("native", "plugin")


def test_a_budget_without_mamba_layers_is_a_native_engine_that_needs_no_library(exported: ExportResult) -> None:
    found = {b.name: (b.pattern, b.engines[0].ops, b.engines[0].plugin is not None) for b in exported.manifest.budgets}
    assert found == {
        "full": ("M*-", "plugin", True),
        "attention": ("*-", "native", False),
        "plain": ("-", "native", False),
    }
    outputs = {b.name: [o.name for o in b.engines[0].outputs] for b in exported.manifest.budgets}
    assert outputs["attention"] == ["logits", "key_cache_out.0", "value_cache_out.0"]
    assert outputs["plain"] == ["logits"]


def test_they_verify(exported: ExportResult) -> None:
    report = verify_bundle(exported.output)
    assert report.passed
    replays = {outcome.file: outcome.replay for outcome in report.models}
    plain = replays["plain/model.onnx"]
    assert plain is not None
    assert (plain.state, plain.state_name) == (0.0, "")
    assert plain.text().endswith(", no states")
    assert all(replay is not None and 0 < replay.logits < 1e-5 for replay in replays.values())
