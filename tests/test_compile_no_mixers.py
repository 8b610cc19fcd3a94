"""Budgets that keep no Mamba layer, and none that has a state at all, from the checkpoint to `verify`."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.bundle.digests import Digests
from elastic_export.bundle.forecast import disk_needed
from elastic_export.bundle.unchanged import unchanged
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.compile import ExportResult, export
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.plan.job import ExportJob, ExportOptions, plan_job
from elastic_export.plan.ops_modes import OpsWish
from elastic_export.progress import Progress
from elastic_runtime.verify.bundle_verification import verify_bundle
from synthetic import write_checkpoint

ARCH = Architecture("M*-", 97, 48, (72,), (8,), 12, 2, 16, 4, 8, 2, 16, 1e-5, (0.0, math.inf))
FULL = Budget.full(ARCH, "full")
ATTENTION = Budget("attention", 40, (64,), (8,), 12, 4, (0,))
PLAIN = Budget("plain", 40, (64,), (8,), 12, 8, (0, 1))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = random_weights(ARCH, np.random.default_rng(5))
    folder = tmp_path_factory.mktemp("mixers") / "tiny"
    return write_checkpoint(folder, ARCH, weights, [FULL, ATTENTION, PLAIN], "bf16", 1)


def plan(checkpoint: Path, output: Path, ops: OpsWish = "plugin,native", **more: Any) -> ExportJob:
    options = ExportOptions("all", "rtx5080", output, ops=ops, max_tokens=16, max_contexts=(64,), **more)
    return plan_job(Checkpoint.open(checkpoint), options, demo=False)


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> ExportResult:
    """All three budgets as plugin and as native engines, as by default where there is no library."""
    return export(plan(checkpoint, checkpoint.parent / "out"), Progress())


def test_the_options_speak_of_the_engines_not_of_the_request(exported: ExportResult) -> None:
    assert exported.manifest.options["ops"] == ("native", "plugin")


def test_a_budget_without_a_layer_for_a_plugin_is_a_native_engine_that_needs_no_library(exported: ExportResult) -> None:
    found = {b.name: (b.pattern, b.engines[0].ops, b.engines[0].plugin is not None) for b in exported.manifest.budgets}
    assert found == {
        "full": ("M*-", "plugin", True),
        "attention": ("*-", "plugin", True),
        "plain": ("-", "native", False),
    }
    outputs = {b.name: [o.name for o in b.engines[0].outputs] for b in exported.manifest.budgets}
    assert outputs["attention"] == ["logits", "key_cache_out.0", "value_cache_out.0"]
    assert outputs["plain"] == ["logits"]


def test_that_no_layer_reads_an_input_is_said_once_and_is_no_warning(exported: ExportResult) -> None:
    """Every model has the input `position`, which only attention reads."""
    plain = json.loads((exported.output / "plain" / "report.json").read_text("utf-8"))
    [engine] = plain["engines"].values()
    assert engine["unused_inputs"] == ["position"]
    assert engine["remarks"] == []


def test_they_verify(exported: ExportResult) -> None:
    report = verify_bundle(exported.output)
    assert report.passed
    replays = {outcome.file: outcome.replay for outcome in report.models}
    plain = replays["plain/model.onnx"]
    assert plain is not None
    assert (plain.state, plain.state_name) == (0.0, "")
    assert plain.text().endswith(", no states")
    assert all(replay is not None and 0 < replay.logits < 1e-5 for replay in replays.values())


def test_the_same_export_again_has_nothing_to_do(exported: ExportResult, checkpoint: Path) -> None:
    again = unchanged(plan(checkpoint, exported.output), Progress(), Digests())
    assert again is not None
    assert again.manifest == exported.manifest


@pytest.mark.parametrize("add", [False, True])
def test_plugins_beside_an_older_bundle_of_native_engines(
    tmp_path: Path, exported: ExportResult, checkpoint: Path, add: bool
) -> None:
    """The native engine of the budget that no plugin serves stands for both modes, and is listed once."""
    native = export(plan(checkpoint, tmp_path / "out", "native"), Progress())
    both = export(plan(checkpoint, tmp_path / "out", add=add), Progress())
    assert listed(both) == listed(exported)
    assert [engine.facts is None for result in both.budgets for engine in result.engines].count(True) == 3
    assert listed(native) == {name: engines[-1:] for name, engines in listed(both).items()}
    alone = plan(checkpoint, tmp_path / "out", "plugin", add=True)
    again = unchanged(alone, Progress(), Digests())
    assert again is not None
    assert again.manifest == both.manifest


def listed(result: ExportResult) -> dict[str, list[str]]:
    return {budget.name: sorted(engine.ops for engine in budget.engines)[::-1] for budget in result.manifest.budgets}


def test_a_forecast_counts_the_engines_that_are_built(checkpoint: Path, tmp_path: Path) -> None:
    one, both = (plan(checkpoint, tmp_path / "out", ops) for ops in ("plugin", "plugin,native"))
    assert [len(both.engines_of(budget)) for budget in both.budgets] == [2, 2, 1]
    more = [
        disk_needed(replace(both, budgets=(budget,))) - disk_needed(replace(one, budgets=(budget,)))
        for budget in (FULL, ATTENTION)
    ]
    assert disk_needed(both) - disk_needed(one) == sum(more)
    assert min(more) > 0
