"""Whole exports of a small checkpoint, real engines included; what is refused stands in test_compile_refusals.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from elastic_export.bundle import made_from
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.compile import ExportResult
from elastic_export.ops.mamba2_mixer import body
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError
from elastic_runtime.format.golden import read_golden
from elastic_runtime.format.weights import WeightRecipe, iter_weights
from elastic_runtime.ort.onnx_model import OnnxModel
from small_export import ARCH, SMALL, contents, run, write_small

# One worker: it exports once what the tests share.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`checkpoint(dtype="bf16", **more)`: the folder of a small parent, made once each."""
    made: dict[str, Path] = {}

    def make(dtype: str = "bf16", **more: Any) -> Path:
        key = f"{dtype}{more}"
        if key not in made:
            made[key] = write_small(tmp_path_factory.mktemp(dtype) / "tiny", dtype, **more)
        return made[key]

    return make


def replay_error(output: Path, budget: str, external: Path | None = None) -> float:
    """The shipped model under onnxruntime against the bundle's golden logits, weights as a consumer loads them."""
    folder, recipe = output / budget, output / budget / "weights.json"
    weights = iter_weights(WeightRecipe.read(recipe), folder, external=external) if recipe.exists() else ()
    model, golden = (
        OnnxModel(onnx.load(folder / "model.onnx"), weights, threads=1),
        read_golden(folder / "golden.safetensors"),
    )
    state, worst = model.empty_state(len(golden.ids), 64), 0.0
    for call in range(golden.calls):
        logits, state = model.call(golden.call_ids(call), golden.position[call], golden.length[call], state)
        for row, count in enumerate(golden.length[call]):
            if count:
                mine, theirs = logits[row, count - 1] if logits.ndim == 3 else logits[row], golden.logits[call, row]
                worst = max(worst, float(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)))
    return worst


def text_files(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name.endswith((".json", ".onnx"))}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[..., Path]) -> ExportResult:
    """All budgets for two cards of one compute capability, shared weights."""
    return run(checkpoint(), tmp_path_factory.mktemp("shared") / "out", "all", "rtx5080,rtx5090")


# -------------------------------------------------------------------------------------------------- what is written


def test_shared_weights(shared: ExportResult, checkpoint: Callable[..., Path]) -> None:
    out = shared.output
    assert Bundle.open(out, "digests").manifest == shared.manifest
    assert {p.name for p in (out / "small").iterdir()} == {
        "model.onnx", "weights.json", "golden.safetensors", "report.json", "rtx5080.engine", "rtx5090.engine",
    }  # fmt: skip
    assert [b.name for b in shared.manifest.budgets] == ["full", "small"]
    assert [b.parameters for b in shared.manifest.budgets] == [ARCH.parameters(), SMALL.architecture(ARCH).parameters()]
    for shard in checkpoint().glob("*.safetensors"):
        assert (out / "weights" / shard.name).samefile(shard)
    assert (out / "LICENSE").read_text() == "None.\n"
    assert not shared.manifest.demo
    assert max(replay_error(out, name) for name in ("full", "small")) < 1e-4


def test_targets_of_one_compute_capability_share_one_engine(shared: ExportResult) -> None:
    for budget in ("full", "small"):
        first, second = (shared.output / budget / f"{name}.engine" for name in ("rtx5080", "rtx5090"))
        assert first.samefile(second)
        assert first.stat().st_size > 10_000
    entries = {e.target: e for b in shared.manifest.budgets for e in b.engines if b.name == "small"}
    assert entries["rtx5080"].file != entries["rtx5090"].file
    assert entries["rtx5080"].status.state == "built"


def test_the_report_says_what_was_and_what_was_not_run(shared: ExportResult) -> None:
    report = json.loads((shared.output / "small" / "report.json").read_text())
    assert report["passed"] is True
    assert [c["check"] for c in report["checks"]] == ["float32", "rounded", "attributes"]
    assert {c["tolerance"]["error"] for c in report["checks"]} == {1e-4, 2e-3, 1e-6}
    assert {"logits", "conv_state.0", "ssm_state.1", "key_cache.0"} <= set(report["checks"][0]["tensors"])
    skipped = {entry["check"]: entry for entry in report["not_run"]}
    assert set(skipped) == {"small/rtx5080.engine", "small/rtx5090.engine"}
    assert skipped["small/rtx5080.engine"]["command"] == "elastic-export verify BUNDLE --require engine"
    engine = report["engines"]["small/rtx5080.engine"]
    assert report["engines"] == {"small/rtx5080.engine": engine, "small/rtx5090.engine": engine}
    layers = {"Mamba2Mixer": 2, "CachedAttention": 1}
    assert (engine["version"], engine["plugin_layers"]) == (report["versions"]["tensorrt-rtx"], layers)
    assert engine["in_place"]["ssm_state.1"] == "ssm_state_out.1"
    assert set(engine["activation_bytes"]) == {"decode", "prefill"}
    assert engine["reproducible"] == (not engine["remarks"])


def test_manifest_and_models_name_no_machine_and_no_time(shared: ExportResult, checkpoint: Callable[..., Path]) -> None:
    named = [
        str(checkpoint().parent),
        str(shared.output.parent),
        str(Path.home()),
        str(Path(__file__).parents[1]),
        "/tmp",
    ]
    for name, data in text_files(shared.output).items():
        for word in named:
            assert word.encode() not in data, (name, word)
    assert not {"time", "date", "created"} & set(json.loads((shared.output / "manifest.json").read_text()))


CHILD = """
import sys, os, signal
from pathlib import Path
sys.path[:0] = {path!r}
from elastic_export.plan.job import ExportOptions, plan_job
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.compile import export
from elastic_export.progress import Progress

class Killed(Progress):
    def begin(self, name, subject):
        if name == {die!r}:
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    for weights, output in {outputs!r}.items():
        sizes = {{"max_tokens": 16, "max_contexts": (64,), "ops": "plugin"}}
        options = ExportOptions("small", {target!r}, Path(output), weights=weights, **sizes)
        export(plan_job(Checkpoint.open(Path({source!r})), options, demo=False), Killed())
"""


def in_another_process(source: Path, outputs: dict[str, Path], die: str = "", target: str = "rtx5080") -> int:
    """Export `small` to every place, by kind of weights."""
    places = {weights: str(output) for weights, output in outputs.items()}
    code = CHILD.format(path=sys.path, source=str(source), outputs=places, die=die, target=target)
    environment, cwd = {**os.environ, "PYTHONHASHSEED": "17"}, next(iter(outputs.values())).parent
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, check=False).returncode


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[..., Path]) -> dict[str, Path]:
    """`small` exported once more, by another process, to another place, with weights of every kind."""
    folder = tmp_path_factory.mktemp("elsewhere") / "deeper"
    folder.mkdir()
    outputs = {weights: folder / weights for weights in ("shared", "embedded", "sliced")}
    assert in_another_process(checkpoint(), outputs) == 0, [kind for kind, out in outputs.items() if not out.exists()]
    return outputs


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[..., Path]) -> ExportResult:
    """`small` with its weights inside."""
    return run(checkpoint(), tmp_path_factory.mktemp("embedded") / "out", weights="embedded")


def test_the_same_export_gives_the_same_bytes(shared: ExportResult, again: dict[str, Path]) -> None:
    for name in ("model.onnx", "weights.json", "golden.safetensors", "rtx5080.engine"):
        assert (again["shared"] / "small" / name).read_bytes() == (shared.output / "small" / name).read_bytes(), name


@pytest.mark.parametrize("weights", ["shared", "embedded", "sliced"])
def test_equal_exports_give_equal_bundles(
    tmp_path: Path, checkpoint: Callable[..., Path], embedded: ExportResult, again: dict[str, Path], weights: str
) -> None:
    """Every file, from two processes in two working folders into two places."""
    result = embedded if weights == "embedded" else run(checkpoint(), tmp_path / "out", weights=weights)
    one, other = contents(result.output), contents(again[weights])
    assert set(one) == set(other)
    held = {"shared": "weights/", "embedded": "small/model.onnx.data", "sliced": "small/model-00001"}[weights]
    assert [name for name in one if name.startswith(held)]
    assert {"manifest.json", "small/model.onnx", "small/report.json", "small/rtx5080.engine"} <= set(one)
    assert [name for name in one if one[name] != other[name]] == []
    assert again[weights].with_name(f"{weights}.run.json").is_file()


def test_add_keeps_what_is_there(again: dict[str, Path], checkpoint: Callable[..., Path]) -> None:
    bundle = again["shared"]
    before = contents(bundle)
    result = run(checkpoint(), bundle, "full", add=True)
    assert [b.name for b in result.manifest.budgets] == ["full", "small"]
    after = contents(bundle)
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: data for name, data in before.items() if name != "manifest.json"
    }
    assert Bundle.open(bundle, "digests")


def test_sliced_in_another_precision_with_float32_vectors_and_two_contexts(
    tmp_path: Path, checkpoint: Callable[..., Path]
) -> None:
    source, out = checkpoint(fp32_vectors=True), tmp_path / "out"
    result = run(source, out, weights="sliced", precision="fp16", max_contexts=(64, 32))
    assert Bundle.open(out, "digests").manifest.precision == "fp16"
    assert not (out / "weights").exists()
    assert {p.name for p in (out / "small").glob("*.engine")} == {"rtx5080.32.engine", "rtx5080.64.engine"}
    assert [e.max_context for e in result.manifest.budgets[0].engines] == [32, 64]
    sub = Checkpoint.open(out / "small", require_budgets=False)
    assert (sub.architecture, sub.dtype) == (SMALL.architecture(ARCH), "fp16")
    assert sub.tensors["backbone.layers.0.mixer.A_log"].dtype == "fp32"
    assert (out / "small" / "LICENSE").exists()
    assert replay_error(out, "small") < 1e-4


def test_embedded(checkpoint: Callable[..., Path], shared: ExportResult, embedded: ExportResult) -> None:
    out = embedded.output
    assert {p.name for p in (out / "small").iterdir()} == {
        "model.onnx", "model.onnx.data", "golden.safetensors", "report.json", "rtx5080.engine",
    }  # fmt: skip
    assert embedded.manifest.budgets[0].weights is None
    inputs = [value.name for value in onnx.load(out / "small" / "model.onnx", load_external_data=False).graph.input]
    assert not [name for name in inputs if name.endswith("weight")]
    assert replay_error(out, "small") == replay_error(shared.output, "small")
    row = Checkpoint.open(checkpoint()).read("backbone.embeddings.weight")[5, :40].tobytes()
    assert row in (out / "small" / "rtx5080.engine").read_bytes()
    assert row not in (shared.output / "small" / "rtx5080.engine").read_bytes()


def test_float32_all_logits_two_rows_another_prefix_external_weights(
    tmp_path: Path, checkpoint: Callable[..., Path]
) -> None:
    source, out = checkpoint("fp32", prefix="model"), tmp_path / "out"
    result = run(source, out, logits="all", max_batch=2, external_weights=True)
    assert result.manifest.logits == "all"
    engine, *_ = result.budgets[0].engines
    built, facts = engine.entry, engine.facts
    assert facts is not None
    assert built.activation == facts.activation_peak + 4 * 2 * 16 * 97
    assert [f.path for f in result.manifest.external_weights] == sorted(p.name for p in source.glob("*.safetensors"))
    assert not (out / "weights").exists()
    entry = result.manifest.budgets[0].engines[0]
    assert entry.outputs[0].shape == ("B", "T", 97)
    assert entry.max_batch == 2
    assert "model.layers.0.norm.weight" in (out / "small" / "weights.json").read_text()
    assert replay_error(out, "small", external=source) < 1e-4
    report = json.loads((out / "small" / "report.json").read_text())
    assert [c["check"] for c in report["checks"]] == ["float32", "rounded", "attributes"]


# --------------------------------------------------------------------------------------------------- what goes wrong


def test_a_failed_verification_leaves_its_report_and_the_old_bundle(
    tmp_path: Path, checkpoint: Callable[..., Path], shared: ExportResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = body._BODY
    faulty = text.replace("y_block = Add (y_scan, y_skip)", "y_block = Identity (y_scan)")
    assert faulty != text
    monkeypatch.setattr(body, "_BODY", faulty)
    monkeypatch.setattr(made_from, "exporter_digest", lambda: "of an exporter with that body")
    out, before = tmp_path / "out", contents(shared.output)
    with pytest.raises(
        BuildError, match=r"^budget small, float32 check, \S+ after call \d: expected .* OUT\.failed\.json\.$"
    ):
        run(checkpoint(), out)
    assert [p.name for p in tmp_path.iterdir()] == ["out.failed.json"], "neither a bundle nor a record of its run"
    report = json.loads((tmp_path / "out.failed.json").read_text())
    assert (report["passed"], report["checks"][0]["passed"], report["budget"]) == (False, False, "small")
    assert set(report["where"]) == {"platform", "machine", "system", "python", "cpus"}
    with pytest.raises(BuildError):
        run(checkpoint(), shared.output, "all", "rtx5080,rtx5090")
    assert contents(shared.output) == before


def test_killed_while_it_builds_the_old_bundle_stays(
    tmp_path: Path, checkpoint: Callable[..., Path], shared: ExportResult
) -> None:
    before = contents(shared.output)
    assert in_another_process(checkpoint(), {"shared": shared.output}, "engine", "rtx4090") == -signal.SIGKILL
    assert contents(shared.output) == before
    assert Bundle.open(shared.output, "digests")
