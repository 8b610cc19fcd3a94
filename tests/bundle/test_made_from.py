"""What artefacts are made from: all that they depend on is named, and nothing else is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elastic_export
from elastic_export.bundle import made_from
from elastic_export.bundle.made_from import (
    checkpoint_digest,
    differing,
    exporter_digest,
    origin_of_engine,
    origin_of_evidence,
    origin_of_model,
    serves,
)
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.ops.contract import plugin_folder
from elastic_export.packages import package_folder
from elastic_export.plan.job import ExportJob, ExportOptions, plan_job
from elastic_runtime.format.manifest import FileEntry
from small_export import ARCH, SMALL
from synthetic import write_checkpoint

FILES = (
    FileEntry("small/model.onnx", 5, "a" * 64),
    FileEntry("small/weights.json", 5, "b" * 64),
    FileEntry("small/rtx5080.engine", 5, "c" * 64),
    FileEntry("full/model.onnx", 5, "d" * 64),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("parent") / "tiny"
    write_checkpoint(folder, ARCH, random_weights(ARCH, np.random.default_rng(5)), [SMALL])
    (folder / "LICENSE").write_text("None.\n")
    return Checkpoint.open(folder)


def job_of(checkpoint: Checkpoint, **options: Any) -> ExportJob:
    sizes = {"max_tokens": 16, "max_contexts": (64,), "ops": "plugin"}
    asked = ExportOptions("small", "rtx5080", Path("out"), **(sizes | options))
    return plan_job(checkpoint, asked, demo=False)


def origins(job: ExportJob, files: tuple[FileEntry, ...] = FILES, limits: tuple[int, int] = (16, 64)) -> dict[str, Any]:
    [budget], [engine] = job.budgets, job.engines
    return {
        "model": origin_of_model(job, budget, "e" * 64),
        "evidence": origin_of_evidence(job, budget.name, files, "e" * 64, limits),
        "engine": origin_of_engine(job, engine, budget.name, files),
    }


@pytest.mark.parametrize(
    ("options", "touched"),
    [
        ({}, {}),
        ({"targets": "rtx5090"}, {}),
        ({"targets": "rtx4090"}, {"engine": ["options"]}),
        ({"max_contexts": (32,)}, {"engine": ["options"]}),
        ({"max_batch": 2}, {"engine": ["options"]}),
        ({"max_tokens": 8}, {"engine": ["options"]}),
        ({"ops": "native"}, {"engine": ["options"]}),
        ({"logits": "all"}, {"model": ["options"]}),
        ({"precision": "fp16", "weights": "sliced"}, {"model": ["companions", "options"]}),
        ({"verify": False, "add": True, "force": True, "allow_unfit": True, "jobs": 3, "distrust": True}, {}),
    ],
    ids=str,
)
def test_options_touch_what_they_change(
    checkpoint: Checkpoint, options: dict[str, Any], touched: dict[str, list[str]]
) -> None:
    before, job = origins(job_of(checkpoint)), job_of(checkpoint)
    targets = options.pop("targets", "rtx5080") if options else "rtx5080"
    after = origins(plan_job(checkpoint, replace(job.options, targets=targets, **options), demo=False))
    found = {name: differing(before[name], after[name]) for name in before}
    assert {name: names for name, names in found.items() if names} == touched


def test_widths_make_another_model_and_a_name_does_not(checkpoint: Checkpoint) -> None:
    job = job_of(checkpoint)
    [budget] = job.budgets
    before = origin_of_model(job, budget, "e" * 64)
    assert origin_of_model(job, replace(budget, name="tiny"), "e" * 64) == before
    assert differing(before, origin_of_model(job, replace(budget, skip_layers=(0,)), "e" * 64)) == ["budget"]
    assert differing(before, origin_of_model(job, budget, "f" * 64)) == ["checkpoint"]


def test_files_of_the_budget_alone_count(checkpoint: Checkpoint) -> None:
    job, before = job_of(checkpoint), origins(job_of(checkpoint))

    def touched(index: int) -> dict[str, list[str]]:
        files = (*FILES[:index], replace(FILES[index], sha256="0" * 64), *FILES[index + 1 :])
        return {name: names for name, o in origins(job, files).items() if (names := differing(before[name], o))}

    assert touched(0) == {"evidence": ["model"], "engine": ["model"]}
    assert touched(1) == {"evidence": ["model"]}, "weights are inputs of the engine"
    assert touched(2) == touched(3) == {}
    assert differing(before["evidence"], origins(job, limits=(8, 64))["evidence"]) == ["calls"]


def test_whoever_makes_them_counts_for_all(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    job, before = job_of(checkpoint), origins(job_of(checkpoint))
    monkeypatch.setattr(made_from, "exporter_digest", lambda: "another")
    monkeypatch.setattr(made_from, "versions", lambda product: {"torch": "9"})
    assert {tuple(differing(before[name], o)) for name, o in origins(job).items()} == {("exporter", "packages")}


def test_the_checkpoint_is_its_bytes_and_its_config(checkpoint: Checkpoint) -> None:
    job, shards = job_of(checkpoint), (FileEntry("a.safetensors", 5, "a" * 64), FileEntry("b.safetensors", 5, "b" * 64))
    digest = checkpoint_digest(job, shards)
    in_the_bundle = tuple(replace(entry, path=f"weights/{entry.path}") for entry in shards[::-1])
    assert checkpoint_digest(job, in_the_bundle) == digest
    assert checkpoint_digest(job, (shards[0], replace(shards[1], sha256="c" * 64))) != digest
    other = replace(checkpoint, config={**checkpoint.config, "pad_token_id": 7})
    assert checkpoint_digest(replace(job, checkpoint=other), shards) != digest


def test_an_engine_above_the_bounds_serves_where_that_is_allowed() -> None:
    wanted, made = {"model": "a"}, {"model": "a", made_from.OVERSIZE: "allowed"}
    assert not serves(made, wanted)
    assert serves(made, wanted, allow_oversize=True)
    assert serves(wanted, wanted)
    assert not serves({}, wanted, allow_oversize=True)


def test_the_exporter_is_its_sources_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here and as a wheel installs them, with the plugins inside; compiled modules do not count, a comment does."""
    here, plugins = exporter_digest(), plugin_folder()
    for name in ("elastic_export", "elastic_runtime"):
        folder = package_folder(name)
        assert folder is not None
        shutil.copytree(folder, tmp_path / name)
    if not (tmp_path / "elastic_export/plugins").exists():
        shutil.copytree(plugins, tmp_path / "elastic_export/plugins", ignore=shutil.ignore_patterns("*build*"))
    monkeypatch.setattr(made_from, "package_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(elastic_export, "__file__", str(tmp_path / "elastic_export/__init__.py"))

    def now() -> str:
        exporter_digest.cache_clear()
        return exporter_digest()

    try:
        assert now() == here
        (tmp_path / "elastic_export/passes/__pycache__").mkdir(exist_ok=True)
        (tmp_path / "elastic_export/passes/__pycache__/x.cpython-311.pyc").write_bytes(b"compiled")
        assert now() == here
        mixer = "elastic_export/plugins/mamba2_mixer"
        for name in ("elastic_export/passes/order.py", f"{mixer}/contract.json", f"{mixer}/limits.h",
                     "elastic_runtime/fit/targets/rtx5080.toml"):  # fmt: skip
            text = (tmp_path / name).read_text()
            (tmp_path / name).write_text(text + "\n")
            assert now() != here, name
            (tmp_path / name).write_text(text)
    finally:
        exporter_digest.cache_clear()
