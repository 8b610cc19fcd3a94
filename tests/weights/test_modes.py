"""Three ways to hold weights, one interface: what a consumer loads is the slice of the parent, in every mode."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from elastic_export.bundle import digests
from elastic_export.bundle.writer import BundleWriter
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.dtypes import DTYPES
from elastic_export.emit import EmittedModel, emit_model
from elastic_export.graph.facts import clone_with_facts, facts_of
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import slice_array, tensor_runs
from elastic_export.passes import budget_passes, run_passes
from elastic_export.plan.job import ExportJob, ExportOptions, plan_job
from elastic_export.progress import Progress
from elastic_export.reference import budget_masks
from elastic_export.trace.trace import trace_parent
from elastic_export.verify.verify import stored_weight
from elastic_export.weights.modes import Weights, make_weights
from synthetic import write_checkpoint

ARCH = Architecture("M-", 61, 24, (40,), (4,), 8, 2, 8, 4, 4, 2, 16, 1e-5, (0.0, math.inf))
HALF = Budget("half", 16, (20,), (2,), 4, 4, ())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = random_weights(ARCH, np.random.default_rng(0))
    made = write_checkpoint(tmp_path_factory.mktemp("ckpt") / "c", ARCH, weights, [HALF], "bf16", 2, fp32_vectors=True)
    (made / "LICENSE").write_text("None.\n")
    return made


@pytest.fixture(scope="module")
def parent() -> Any:
    return trace_parent(ARCH)


@pytest.fixture
def job_of(folder: Path, tmp_path: Path) -> Callable[..., ExportJob]:
    def make(**options: Any) -> ExportJob:
        asked = ExportOptions("half", "rtx5080", tmp_path / "out", max_contexts=(64,), max_tokens=8, **options)
        return plan_job(Checkpoint.open(folder), asked, demo=False)

    return make


def emitted_of(job: ExportJob, parent: Any, weights: Weights, path: Path) -> EmittedModel:
    graph = clone_with_facts(parent)
    masks = {name: mask.numpy() for name, mask in budget_masks(ARCH, HALF).items()}
    dtypes = {name: DTYPES[weights.stored(name)].ir for name in facts_of(parent).tensors()}
    run_passes(graph, budget_passes(masks, DTYPES[job.precision].ir, dtypes))
    sub, embed = HALF.architecture(ARCH), weights.embedded()
    return emit_model(graph, sub, path, precision=job.precision, embed=embed)


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ({}, {"weights.json"}),
        ({"external_weights": True}, {"weights.json"}),
        ({"weights": "sliced"}, {"weights.json", "config.json", "LICENSE", "model.initialised.onnx"}),
        ({"weights": "sliced", "precision": "fp16"}, {"weights.json", "config.json"}),
        ({"weights": "embedded"}, {"model.onnx.data"}),
        ({"weights": "embedded", "precision": "fp16"}, {"model.onnx.data"}),
    ],
)
def test_what_a_consumer_loads_is_the_slice(
    job_of: Callable[..., ExportJob], parent: Any, options: dict[str, Any], files: set[str]
) -> None:
    job = job_of(**options)
    expected = {
        name: slice_array(stored_weight(job.checkpoint, name, job.precision), runs)
        for name, runs in tensor_runs(ARCH, HALF).items()
    }
    with BundleWriter(job.options.output) as writer:
        weights = make_weights(job, writer, lambda: "parent")
        weights.place([HALF], Progress())
        assert weights.stored("backbone.layers.0.mixer.A_log") == "fp32"
        assert weights.stored("lm_head.weight") == job.precision
        emitted = emitted_of(job, parent, weights, writer.folder("half") / "model.onnx")
        weights.bind(HALF, emitted)
        assert files <= {path.name for path in writer.folder("half").iterdir()}
        assert (writer.path / "weights").is_dir() == (not options)
        source, held = weights.source(HALF), initializers(emitted.path)
        found = held | {name: source.load(name) for name in source.names}
        assert source.names == set(expected) - {name for name, tensor in held.items() if tensor.nbytes <= 1 << 10}
        for name in source.names:
            assert source.rows(name, 1, 1).tobytes() == source.load(name)[1:2].tobytes(), name
        assert set(found) == set(expected)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype, name
            assert found[name].tobytes() == array.tobytes(), name


def test_sliced_shards_are_not_read_again_for_their_digests(
    job_of: Callable[..., ExportJob], parent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, read, digest = job_of(weights="sliced"), list[str](), digests.streamed_digest
    monkeypatch.setattr(digests, "streamed_digest", lambda path, **more: read.append(path.name) or digest(path, **more))
    with BundleWriter(job.options.output) as writer:
        weights = make_weights(job, writer, lambda: "parent")
        weights.bind(HALF, emitted_of(job, parent, weights, writer.folder("half") / "model.onnx"))
        entries = {entry.path: entry for entry in writer._entries()}
        shards = list(writer.folder("half").glob("*.safetensors"))
        assert shards
        for shard in shards:
            assert entries[f"half/{shard.name}"].sha256 == hashlib.sha256(shard.read_bytes()).hexdigest()
    assert "model.onnx" in read
    assert not {shard.name for shard in shards} & set(read)


def initializers(path: Path) -> dict[str, Any]:
    model = onnx.load(path)
    names = {value.name for value in model.graph.input}
    found = {
        t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if not t.name.startswith("constant_")
    }
    assert not names & set(found)
    return found


def test_external_shards_are_named_with_their_digests(job_of: Callable[..., ExportJob], folder: Path) -> None:
    job = job_of(external_weights=True)
    with BundleWriter(job.options.output) as writer:
        make_weights(job, writer, lambda: "parent").place([HALF], Progress())
        assert [entry.result().path for entry in writer._external.values()] == sorted(
            p.name for p in folder.glob("*.safetensors")
        )
        assert all(len(entry.result().sha256) == 64 for entry in writer._external.values())
