"""Whole exports with weights in eight bits, stand-ins for engines: the bundle, what stays of it, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elastic_runtime
from elastic_export.bundle import built, made_from, proof
from elastic_export.bundle.digests import remembering_digests
from elastic_export.bundle.merge import merge_bundles
from elastic_export.bundle.unchanged import unchanged
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.compile import ExportResult, export
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.request import EngineRequest
from elastic_export.evaluate.counterpart import counterparts
from elastic_export.evaluate.from_bundle import bundle_models
from elastic_export.evaluate.lost_rows import weight_loss
from elastic_export.plan.eight_bits import parent_bytes
from elastic_export.plan.job import ExportJob, ExportOptions, plan_job
from elastic_export.progress import Gauge, Progress
from elastic_export.weights import quantised as room
from elastic_runtime import Request
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.weights import SCHEMA_INT8, WeightRecipe
from elastic_runtime.verify.bundle_verification import verify_bundle
from small_export import contents, write_small
from text_engine import text_engine

# One worker: its exports share a trace.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile_int8")]


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The matrices that were quantised; engines are stand-ins."""
    names, real = list[str](), room.quantised

    def build(request: EngineRequest, **more: object) -> EngineFacts:
        return text_engine(request, f"{request.dequantised} dequantised")

    def quantised(checkpoint: Checkpoint, matrix: Any, losses: Any) -> Any:
        names.append(matrix.name)
        return real(checkpoint, matrix, losses)

    monkeypatch.setattr(built, "build_engine", build)
    monkeypatch.setattr(room, "quantised", quantised)
    return names


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write_small(tmp_path / "parent")
    for file in folder.iterdir():
        os.utime(file, (1_600_000_000, 1_600_000_000))
    return folder


def job_of(source: Path, output: Path, budgets: str, **options: Any) -> ExportJob:
    asked = {"max_tokens": 16, "max_contexts": (64,), "ops": "native", "quantise": "int8", **options}
    return plan_job(Checkpoint.open(source), ExportOptions(budgets, "rtx5080", output, **asked), demo=False)


def run(source: Path, output: Path, budgets: str = "all", **options: Any) -> ExportResult:
    job = job_of(source, output, budgets, **options)
    with remembering_digests(distrust=False) as digests:
        return unchanged(job, Progress(), digests) or export(job, Progress(), digests=digests)


def test_the_bundle(source: Path, tmp_path: Path, rounded: list[str]) -> None:
    out = tmp_path / "out"
    result = run(source, out)
    manifest = result.manifest
    assert [(budget.name, budget.budget) for budget in manifest.budgets] == [
        ("full.int8", "full"),
        ("small.int8", "small"),
    ]
    assert {budget.quantisation for budget in manifest.budgets} == {"int8"}
    assert manifest.options["quantize"] == "int8"
    assert [path.name for path in (out / "weights").iterdir()] == ["q8-00001-of-00001.safetensors"]
    assert not (tmp_path / ".out.quantised").exists()
    for budget in manifest.budgets:
        recipe = WeightRecipe.read(out / str(budget.weights))
        assert recipe.schema == SCHEMA_INT8
        assert recipe.nbytes == budget.weight_bytes
        dtypes = {item.dtype for item in recipe.inputs}
        assert dtypes == {"bf16", "fp32", "int8"}
        # Embedding, two layers of two and an attention layer of two products; an MLP of two, which `small` skips.
        assert (out / budget.engines[0].file).read_text() == f"{9 if budget.budget == 'full' else 7} dequantised"
    names = {item.name for item in WeightRecipe.read(out / "full.int8/weights.json").inputs}
    assert "lm_head.weight" in names  # odd: 97 rows
    assert {f"backbone.layers.1.mixer.qkv_proj.weight.{kind}" for kind in ("int8", "scale")} <= names
    checked = verify_bundle(out)
    assert checked.passed
    bytes_of = contents(out)
    run(source, tmp_path / "again")
    assert contents(tmp_path / "again") == bytes_of


def test_it_generates_on_the_cpu(source: Path, tmp_path: Path, rounded: list[str]) -> None:
    run(source, tmp_path / "out", verify=False)
    for form in ("float32", "stored"):
        with elastic_runtime.open(tmp_path / "out", Request(budget="small", device="cpu", weights=form)) as session:
            first = session.prefill([[1, 2, 3]])
            assert np.isfinite(first).all()
            assert np.isfinite(session.decode([int(first.argmax())])).all()


def test_what_stands_is_not_quantised_again(source: Path, tmp_path: Path, rounded: list[str]) -> None:
    out = tmp_path / "out"
    run(source, out, "full")
    first = list(rounded)
    assert first
    inode = next((out / "weights").iterdir()).stat().st_ino
    assert not run(source, out, "full").changed
    assert run(source, out, "all").changed  # one budget stays, and so do the weights of all
    assert rounded == first
    assert next((out / "weights").iterdir()).stat().st_ino == inode
    assert verify_bundle(out).passed


def test_a_file_that_was_damaged_is_made_again(source: Path, tmp_path: Path, rounded: list[str]) -> None:
    out = tmp_path / "out"
    run(source, out)
    first, whole = list(rounded), contents(out)
    [file] = (out / "weights").iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    run(source, out)
    assert rounded == first * 2
    assert contents(out) == whole


@pytest.mark.parametrize("same", [True, False])
def test_a_run_that_failed_leaves_the_file_to_the_next_of_the_same_exporter(
    source: Path, tmp_path: Path, rounded: list[str], monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """Another one may round otherwise, and the bundle would say that it is all its own."""
    out, verify = tmp_path / "out", proof.verify_budgets

    def fails(*_: Any) -> Any:
        raise BuildError("verification", expected="to hold", found="a fault")

    monkeypatch.setattr(proof, "verify_budgets", fails)
    with pytest.raises(BuildError):
        run(source, out)
    first = list(rounded)
    left = sorted(path.name for path in (tmp_path / ".out.quantised").iterdir())
    assert left == ["q8-00001-of-00001.json", "q8-00001-of-00001.safetensors"]
    monkeypatch.setattr(proof, "verify_budgets", verify)
    if not same:
        monkeypatch.setattr(made_from, "exporter_digest", lambda: "another")
    run(source, out)
    assert rounded == first * (1 if same else 2)
    assert not (tmp_path / ".out.quantised").exists()
    assert verify_bundle(out).passed


@pytest.mark.parametrize("there", [False, True])
def test_it_is_told_how_far_the_weights_are(source: Path, tmp_path: Path, rounded: list[str], there: bool) -> None:
    """While they are quantised, and where a budget is counted beside files that are there."""

    class Heard(Progress):
        def watch(self, gauge: Gauge) -> None:
            gauges[self.running] = gauge

        def begin(self, name: str, subject: str) -> None:
            self.running = name

    gauges, job = dict[str, Gauge](), job_of(source, tmp_path / "out", "small", verify=False, add=there)
    if there:
        run(source, tmp_path / "out", "full", verify=False)
    export(job, Heard())
    assert job.eight_bits is not None
    total = parent_bytes(job.checkpoint, job.precision, job.eight_bits)
    assert gauges["weights"].done() == gauges["weights"].total == total


def test_another_parent_is_quantised_anew(source: Path, tmp_path: Path, rounded: list[str]) -> None:
    out = tmp_path / "out"
    run(source, out, verify=False)
    first = len(rounded)
    shard = sorted(source.glob("*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    run(source, out, verify=False)
    assert len(rounded) == 2 * first
    with pytest.raises(InputError, match="--add, checkpoint"):
        run(write_small(tmp_path / "third"), out, add=True, verify=False)


def test_a_file_of_another_parent_is_refused_by_a_runtime(source: Path, tmp_path: Path, rounded: list[str]) -> None:
    """Of the same shapes, as another training of the model is; of a large file nobody reads all to open it."""
    run(source, tmp_path / "out", verify=False)
    [file] = (tmp_path / "out/weights").iterdir()
    bundle = Bundle.open(tmp_path / "out")
    assert bundle.recipe(bundle.budget("small"))
    parent = bundle.manifest.checkpoint.fingerprint
    file.write_bytes(file.read_bytes().replace(parent.encode(), b"0" * 64, 1))
    text = f"q8-00001.*: expected the quantised weights of parent, {parent[:12]}…, found those of 000000000000…"
    with pytest.raises(InputError, match=text):
        bundle.recipe(bundle.budget("small"))


def test_a_budget_is_added(source: Path, tmp_path: Path, rounded: list[str]) -> None:
    run(source, tmp_path / "out", "full")
    run(source, tmp_path / "out", "small", add=True)
    assert verify_bundle(tmp_path / "out").passed
    run(source, tmp_path / "both")
    names = {path: data for path, data in contents(tmp_path / "both").items() if path.endswith(("json", "onnx"))}
    added = contents(tmp_path / "out")
    assert {path: added[path] for path in names if path != "manifest.json"} == {
        path: data for path, data in names.items() if path != "manifest.json"
    }


def test_a_plain_bundle_says_nothing_of_it(source: Path, tmp_path: Path, rounded: list[str]) -> None:
    """Bundles that older runtimes read keep their bytes."""
    run(source, tmp_path / "out", quantise="none", verify=False)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert "quantize" not in manifest["options"]
    assert all("quantisation" not in budget for budget in manifest["budgets"])
    assert '"elastic-weights/1"' in (tmp_path / "out/full/weights.json").read_text()
    assert not rounded


def measured(source: Path, output: Path) -> dict[str, Any]:
    """What `evaluate BUNDLE --against CHECKPOINT` computes of the files, by budget."""
    models = [model for model in bundle_models(Bundle.open(output), "all")[0] if model.quantisation]
    pairs, _ = counterparts(models, Checkpoint.open(source))
    return {pair.quantised.name: weight_loss(pair) for pair in pairs}


def roundings(output: Path) -> dict[str, Any]:
    """The section of the reports of a bundle, by budget."""
    reports = sorted(output.glob("*/report.json"))
    return {path.parent.name: json.loads(path.read_text())["rounding"] for path in reports}


def test_reports_say_what_rounding_took_as_evaluate_does(source: Path, tmp_path: Path, rounded: list[str]) -> None:
    """The head, of 97 rows, stays and counts."""
    run(source, tmp_path / "out", verify=False)
    found = roundings(tmp_path / "out")
    assert found.keys() == {"full.int8", "small.int8"}
    for budget, expected in measured(source, tmp_path / "out").items():
        section = found[f"{budget}.int8"]
        assert (section["quantisation"], section["dequantised"]) == ("int8", [])
        assert section["error"] == pytest.approx(expected.error, rel=1e-3)
        rows = [(row["tensor"], row["row"]) for row in section["rows"]]
        assert rows == [(row.tensor, row.row) for row in expected.rows]
        assert [row["error"] for row in section["rows"]] == pytest.approx([r.error for r in expected.rows], rel=1e-3)
    assert found["full.int8"]["error"] != found["small.int8"]["error"]


def test_what_rounding_took_stays_in_the_reports(source: Path, tmp_path: Path, rounded: list[str]) -> None:
    """Of a budget that is kept, with one that is made beside it, added or in bf16; then the parent is read for it."""
    out = tmp_path / "out"
    run(source, tmp_path / "both", verify=False)
    expected = roundings(tmp_path / "both")
    run(source, out, "full", verify=False)
    assert roundings(out) == {"full.int8": expected["full.int8"]}
    kept = run(source, out, verify=False)
    assert [budget.kept is None for budget in kept.budgets] == [False, True]
    assert contents(out) == contents(tmp_path / "both")
    run(source, out, "small", quantise="none", add=True, verify=False)
    run(source, out, "small", add=True, verify=False)
    assert roundings(out) == {**expected, "small": None}
    run(source, tmp_path / "part", "small", verify=False)
    run(source, tmp_path / "other", "full", verify=False)
    merge_bundles([tmp_path / "part", tmp_path / "other"], tmp_path / "joined")
    assert roundings(tmp_path / "joined") == expected


def test_killed_while_it_quantises(
    source: Path, tmp_path: Path, rounded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some files are whole then; the next export takes them up, and what rounding took, and leaves nothing beside."""
    monkeypatch.setattr(room.Quantised.__init__, "__kwdefaults__", {"max_file_bytes": 4000})
    run(source, tmp_path / "whole", verify=False)
    wanted, real = len(list((tmp_path / "whole/weights").iterdir())), room.quantised

    def dies(checkpoint: Checkpoint, matrix: Any, losses: Any) -> Any:
        if len(list((tmp_path / ".out.quantised").glob("*.safetensors"))) == 2:
            raise KeyboardInterrupt
        return real(checkpoint, matrix, losses)

    assert wanted > 3
    monkeypatch.setattr(room, "quantised", dies)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", verify=False)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(room, "quantised", real)
    run(source, tmp_path / "out", verify=False)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not (tmp_path / ".out.quantised").exists()
