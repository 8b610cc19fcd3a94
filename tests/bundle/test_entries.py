"""Manifest entries say what the graph, the request and the build say."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from closed_form import state_entries
from elastic_export.bundle.destination import check_destination
from elastic_export.bundle.entries import budget_entry, engine_entry, io_table, manifest_of
from elastic_export.bundle.results import BudgetResult, EngineResult
from elastic_export.bundle.versions import versions
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.emit import EmittedModel
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.graph.facts import StateSlice
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import state_runs
from elastic_export.plan.job import ExportJob, ExportOptions, plan_job
from elastic_export.reference.state import state_ports_of
from elastic_runtime.errors import InputError
from elastic_runtime.fit.vram import vram_needed
from elastic_runtime.format.interface import logits_port, token_ports
from elastic_runtime.format.manifest import EngineEntry
from synthetic import write_checkpoint

ARCH = Architecture("M-*M", 61, 24, (40,), (4, 4), 8, 2, 8, 4, 4, 2, 16, 1e-5, (0.0, math.inf))
HALF = Budget("half", 16, (20,), (4, 2), 4, 4, (0,))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> ExportJob:
    base = tmp_path_factory.mktemp("ckpt")
    write_checkpoint(base / "tiny", ARCH, random_weights(ARCH, np.random.default_rng(0)), [HALF])
    sizes = {"max_contexts": (64, 128), "max_tokens": 8, "max_batch": 2}
    options = ExportOptions("half", "rtx5080,rtx5090", base / "out", ops="plugin", **sizes)
    return plan_job(Checkpoint.open(base / "tiny"), options, demo=True)


@pytest.fixture
def emitted() -> EmittedModel:
    sub = HALF.architecture(ARCH)
    states = state_ports_of(sub, "bfloat16")
    layers = {"conv_state.0": 3, "ssm_state.0": 3, "key_cache.0": 2, "value_cache.0": 2}
    slices = tuple(StateSlice(p.name, p.output, p.kind, layers[p.name], _runs(p.kind, p.name)) for p in states)
    ports = (*token_ports(), *states)
    return EmittedModel(
        Path("model.onnx"), sub, "bf16", ports, (), logits_port(61, every_token=False), {}, 0, {}, slices
    )


def _runs(kind: str, name: str) -> Any:
    runs = state_runs(ARCH, HALF)[name][1]
    return (None, runs[0], None, runs[1]) if "cache" in kind else (None, *runs)


FACTS = EngineFacts(
    size=5, seconds=1.0, peak_rss=1, activation_bytes=(100, 7_000_000), plugin_layers={}, in_place={}, layers=9,
    unused_inputs=(), flavour="rtx", version="1.7.1", chances=(), oversize=(), warnings=(),
)  # fmt: skip


def result(job: ExportJob, emitted: EmittedModel, *engines: EngineEntry) -> BudgetResult:
    """What the budget came to with these engines."""
    built = [EngineResult(engine, FACTS.report(), FACTS.size, {}, FACTS) for engine in engines]
    return BudgetResult(HALF, job.sizes[0], model=emitted, engines=built)


def test_an_engines_entry(job: ExportJob, emitted: EmittedModel) -> None:
    small, large = job.engines
    entry = engine_entry(job, emitted, small, job.targets[1], FACTS, job.sizes[0], "plugin", None)
    assert (entry.target, entry.file, entry.max_context) == ("rtx5090", "half/rtx5090.64.engine", 64)
    assert (entry.max_tokens, entry.max_batch, entry.ops, entry.plugin) == (8, 2, "plugin", None)
    assert (entry.compute_capabilities, entry.version, entry.status.state) == (("12.0",), "1.7.1", "built")
    assert (entry.activation, entry.activation_measured) == (7_000_000, False)
    longer = engine_entry(job, emitted, large, job.targets[1], FACTS, job.sizes[0], "plugin", None)
    more = 2 * 64 * job.sizes[0].kv_bytes_per_token
    assert longer.fits is not None
    assert entry.fits is not None
    assert longer.fits.total - entry.fits.total == more


def test_the_logits_of_every_token_count_as_scratch(job: ExportJob, emitted: EmittedModel) -> None:
    """Two rows of 8 tokens, 61 logits of 4 bytes; a reader of the manifest reckons what the exporter wrote."""
    last, every = (
        engine_entry(each, emitted, each.engines[0], each.targets[0], FACTS, each.sizes[0], "plugin", None)
        for each in (job, replace(job, options=replace(job.options, logits="all")))
    )
    assert every.activation == every.fits.activation == 7_000_000 + 2 * 8 * 61 * 4
    assert every.fits.total - last.fits.total == 2 * 8 * 61 * 4
    size = budget_entry(job, result(job, emitted, every)).size(every)
    assert vram_needed(size, context=64, batch=2).total == every.fits.total


def test_states_share_the_buffers_that_the_engine_was_built_with(job: ExportJob, emitted: EmittedModel) -> None:
    built = {"key_cache.0": "key_cache_out.0", "ssm_state.0": "ssm_state_out.0"}
    inputs, outputs = io_table(emitted, built)
    assert [port.name for port in inputs][:3] == ["input_ids", "position", "length"]
    rules = {output.name: (output.input, output.alias) for output in outputs}
    assert rules["logits"] == (None, None)
    assert rules["key_cache_out.0"] == ("key_cache.0", "must")
    assert rules["ssm_state_out.0"] == ("ssm_state.0", "must")
    assert rules["value_cache_out.0"] == ("value_cache.0", "must_not")
    assert {o.alias for o in io_table(emitted, {})[1]} == {None, "must_not"}


def test_a_budgets_entry(job: ExportJob, emitted: EmittedModel) -> None:
    entry = budget_entry(job, result(job, emitted))
    assert (entry.pattern, entry.layers, entry.kept_layers) == ("-*M", 3, (1, 2, 3))
    assert entry.parameters == HALF.architecture(ARCH).parameters()
    assert (entry.weights, entry.golden) == ("half/weights.json", "half/golden.safetensors")
    assert entry.states == state_entries(ARCH, HALF)
    bare = replace(job, options=replace(job.options, weights="embedded", verify=False))
    entry = budget_entry(bare, result(bare, emitted))
    assert (entry.weights, entry.golden, entry.report) == (None, None, "half/report.json")


def test_the_manifest_reads_back(job: ExportJob, emitted: EmittedModel) -> None:
    engines = [
        engine_entry(job, emitted, e, t, FACTS, job.sizes[0], "plugin", None) for e in job.engines for t in e.targets
    ]
    manifest = manifest_of(job, [result(job, emitted, *engines)])
    assert manifest.demo
    assert manifest.checkpoint.name == "tiny"
    assert manifest.options == job.normalised()
    text = replace(manifest, files=()).to_json()
    assert str(job.options.output.parent) not in text
    assert '"demo": true' in text


def test_the_plan_says_where_nothing_can_be_written_or_added(job: ExportJob, tmp_path: Path, export: Callable) -> None:
    export(tmp_path / "out", {"big": [("rtx5080", 1024)]})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    before = sorted(tmp_path.rglob("*"))
    for output, add in ((tmp_path / "new", True), (tmp_path / "out", False)):
        check_destination(replace(job, options=replace(job.options, output=output, add=add)))
    for output, message in ((tmp_path / "full", "no manifest.json in it"), (tmp_path / "out", "whose weights differ")):
        with pytest.raises(InputError, match=message):
            check_destination(replace(job, options=replace(job.options, output=output, add=True)))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_plan_does_not_offer_the_checkpoints_own_folder(job: ExportJob) -> None:
    inside = replace(job, demo=False, options=replace(job.options, output=job.checkpoint.path))
    with pytest.raises(InputError, match="a folder of its own"):
        check_destination(inside)


def test_versions_are_those_installed() -> None:
    found = versions()
    for name in ("torch", "onnx", "tensorrt-rtx"):
        assert found[name] == importlib.metadata.version(name)
    assert {"elastic-export", "python"} <= set(found)
    assert "elastic-nonsense" not in found
