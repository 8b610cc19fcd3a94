"""`--add`, whole exports with stand-ins for engines: one bundle that holds together whichever export made its parts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.bundle import built, made_from, proof, report_file
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.cli.inspect import inspect
from elastic_export.compile import ExportResult, export
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.request import EngineRequest
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.ops.mamba2_mixer import body
from elastic_export.plan.job import ExportOptions, plan_job
from elastic_export.progress import Progress
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.format.golden import read_golden
from elastic_runtime.format.records import encode
from elastic_runtime.verify.bundle_verification import verify_bundle
from synthetic import write_checkpoint
from text_engine import text_engine

# One worker: it exports once what the tests share.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile_add")]

ARCH = Architecture("M*-", 61, 32, (48,), (4,), 8, 2, 8, 4, 4, 2, 8, 1e-5, (0.0, math.inf))


def fake_engine(request: EngineRequest, **more: object) -> EngineFacts:
    text = f"engine of {request.max_tokens} tokens, {request.max_context} rows, {request.compute_capabilities}"
    warnings = ("it is cold",) if request.max_tokens == 15 else ()
    return text_engine(request, text, layers=request.max_context, warnings=warnings)


@pytest.fixture(autouse=True)
def _no_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built, "build_engine", fake_engine)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = random_weights(ARCH, np.random.default_rng(3))
    return write_checkpoint(tmp_path_factory.mktemp("parent") / "tiny", ARCH, weights, [Budget.full(ARCH, "full")])


def run(source: Path, output: Path, targets: str = "rtx5080", **options: Any) -> ExportResult:
    sizes = {"max_tokens": 16, "max_contexts": (64,), "ops": "native"}
    job = plan_job(Checkpoint.open(source), ExportOptions("full", targets, output, **(sizes | options)), demo=False)
    return export(job, Progress())


def report(output: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((output / "full" / "report.json").read_text())
    return result


def test_the_golden_run_is_within_the_limits_of_engines_that_stay(tmp_path: Path, checkpoint: Path) -> None:
    run(checkpoint, tmp_path / "out")
    run(checkpoint, tmp_path / "out", "rtx4090", add=True, max_tokens=128, max_contexts=(512,))
    golden = read_golden(tmp_path / "out" / "full" / "golden.safetensors")
    assert int(golden.tokens.max()) <= 16
    assert int((golden.position + golden.tokens[:, None]).max()) <= 64
    run(checkpoint, tmp_path / "out", "rtx5080,rtx4090", add=True, max_tokens=128, max_contexts=(512,))
    both = read_golden(tmp_path / "out" / "full" / "golden.safetensors")
    assert int(both.tokens.max()) <= 16, "the engine of 64 rows is another one and stays"
    run(checkpoint, tmp_path / "new", max_tokens=128, max_contexts=(512,))
    assert int(read_golden(tmp_path / "new" / "full" / "golden.safetensors").tokens.max()) > 16


def test_evidence_of_the_same_files_is_kept_without_a_new_verification(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "out"
    run(checkpoint, out)
    golden, before = (out / "full" / "golden.safetensors").read_bytes(), report(out)
    result = run(checkpoint, out, "rtx4090", add=True, verify=False)
    after = report(out)
    assert (out / "full" / "golden.safetensors").read_bytes() == golden
    assert {name: after[name] for name in ("passed", "checks", "run", "versions")} == {
        name: before[name] for name in ("passed", "checks", "run", "versions")
    }
    assert [entry["check"] for entry in after["not_run"]] == ["full/rtx4090.engine", "full/rtx5080.engine"]
    assert result.manifest.budgets[0].golden == "full/golden.safetensors"
    assert result.manifest.options["verify"] is True
    assert verify_bundle(out).passed


class Said(Progress):
    """Remembers what a user is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_the_builders_warnings_are_said_once_and_a_clean_build_is_silent(tmp_path: Path, checkpoint: Path) -> None:
    for tokens, told in ((16, []), (15, ["full/rtx4090.engine, full/rtx5080.engine: the builder warns: it is cold"])):
        said, sizes = Said(), {"max_tokens": tokens, "max_contexts": (64,), "ops": "native", "verify": False}
        options = ExportOptions("full", "rtx4090,rtx5080", tmp_path / f"{tokens}", **sizes)
        result = export(plan_job(Checkpoint.open(checkpoint), options, demo=False), said)
        assert said.lines == told
        for engine in report(result.output)["engines"].values():
            assert engine["remarks"] == [text.partition(": ")[2] for text in told]


def test_what_was_said_of_engines_that_stay_is_kept(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "out"
    run(checkpoint, out)
    run(checkpoint, out, "rtx4090,rtx5080", add=True, verify=False, max_contexts=(128,))
    layers = {file: engine["layers"] for file, engine in report(out)["engines"].items()}
    assert layers == {"full/rtx4090.engine": 128, "full/rtx5080.64.engine": 64, "full/rtx5080.engine": 128}


def test_inspect_shows_what_the_builder_said(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(checkpoint, tmp_path / "out", verify=False, max_tokens=15)
    inspect.main([str(tmp_path / "out")], standalone_mode=False)
    *_, row, note = capsys.readouterr().out.splitlines()
    assert " ".join(row.split()) == "full/rtx5080.engine tensorrt-rtx 1.7.1 64 none 2 states none 1000 B 2.0 KiB yes"
    assert note == "note: full/rtx5080.engine: the builder warns: it is cold"
    inspect.main([str(tmp_path / "out"), "--json"], standalone_mode=False)
    [engine] = json.loads(capsys.readouterr().out)["budgets"][0]["engines"]
    assert engine["build"] == report(tmp_path / "out")["engines"]["full/rtx5080.engine"]


def test_a_bundle_whose_reports_say_nothing_of_engines_is_inspected_and_added_to(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of version 0.1.0."""
    out = tmp_path / "out"
    with monkeypatch.context() as old:
        made = report_file.report_of
        old.setattr(report_file, "report_of", lambda *a, engines, **more: _without_engines(made(*a, **more)))
        run(checkpoint, out, verify=False)
    inspect.main([str(out)], standalone_mode=False)
    assert "same bytes" not in capsys.readouterr().out
    inspect.main([str(out), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["budgets"][0]["engines"][0]["build"] is None
    run(checkpoint, out, "rtx4090", add=True, verify=False)
    assert list(report(out)["engines"]) == ["full/rtx4090.engine"]
    capsys.readouterr()
    inspect.main([str(out)], standalone_mode=False)
    said = capsys.readouterr().out.split("same bytes again", 1)[1].splitlines()[1:3]
    assert ["not recorded" in line for line in sorted(said)] == [False, True]  # rtx4090, rtx5080


def _without_engines(made: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in made.items() if name != "engines"}


def test_a_hostile_report_does_not_steer_the_terminal(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hostile(report: object) -> Any:
        return {**encode(report), "version": "\x1b[2J", "remarks": ["\x1b]0;owned\x07"]}

    monkeypatch.setattr(report_file, "encode", hostile)
    run(checkpoint, tmp_path / "out", verify=False)
    inspect.main([str(tmp_path / "out")], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "owned" in shown
    assert "\x1b" not in shown


def test_a_report_of_other_words_is_named(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_file, "encode", lambda report: {"layers": "many"})
    run(checkpoint, tmp_path / "out", verify=False)
    with pytest.raises(InputError, match=r"^full/report\.json: engines\['full/rtx5080\.engine'\]: expected the field"):
        inspect.main([str(tmp_path / "out")], standalone_mode=False)


def test_a_golden_run_beyond_the_new_engines_limits_is_dropped(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "out"
    run(checkpoint, out)
    result = run(checkpoint, out, "rtx4090", add=True, verify=False, max_tokens=4, max_contexts=(32,))
    assert result.manifest.budgets[0].golden is None
    assert report(out)["passed"] is None
    assert {entry["check"] for entry in report(out)["not_run"]} == {
        "float32 and rounded", "full/rtx4090.engine", "full/rtx5080.engine",
    }  # fmt: skip
    assert Bundle.open(out, "digests")


def test_options_and_report_speak_of_all_that_the_bundle_holds(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "out"
    run(checkpoint, out)
    result = run(checkpoint, out, "rtx4090,rtx5080", add=True, max_tokens=32, max_contexts=(128,), max_batch=2)
    options = result.manifest.options
    assert options["targets"] == ("rtx4090", "rtx5080")
    assert options["max_contexts"] == (64, 128)
    assert options["max_tokens"] == (16, 32)
    assert options["max_batch"] == (1, 2)
    assert options["ops"] == "native"
    assert [entry["check"] for entry in report(out)["not_run"]] == [
        "full/rtx4090.engine", "full/rtx5080.64.engine", "full/rtx5080.engine",
    ]  # fmt: skip
    assert sorted(engine.file for engine in result.manifest.budgets[0].engines) == [
        "full/rtx4090.engine", "full/rtx5080.64.engine", "full/rtx5080.engine",
    ]  # fmt: skip
    assert Bundle.open(out, "digests").manifest == result.manifest


def test_another_graph_is_refused_before_an_engine_is_built(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(checkpoint, tmp_path / "out")
    monkeypatch.setattr(body, "_BODY", body._BODY.replace("y_skip", "y_skipped"))
    monkeypatch.setattr(made_from, "exporter_digest", lambda: "of an exporter with that body")
    monkeypatch.setattr(proof, "verify_budgets", lambda *args: pytest.fail("verified before it was refused"))
    monkeypatch.setattr(built, "build_engine", lambda request, **more: pytest.fail("built before it was refused"))
    with pytest.raises(InputError, match=r"budget full: expected as in the bundle, the full/model\.onnx of its other"):
        run(checkpoint, tmp_path / "out", "rtx4090", add=True)


@pytest.mark.parametrize("external", [False, True])
def test_shards_inside_and_outside_do_not_mix(tmp_path: Path, checkpoint: Path, external: bool) -> None:
    run(checkpoint, tmp_path / "out", external_weights=external, verify=False)
    with pytest.raises(InputError, match="--add, --external-weights: expected as in the bundle, shards") as caught:
        run(checkpoint, tmp_path / "out", "rtx4090", add=True, external_weights=not external, verify=False)
    assert caught.value.exit_code == 2


def test_targets_share_an_engine_where_links_are_impossible(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    run(checkpoint, tmp_path / "out", "rtx5080,rtx5090", verify=False)
    first, second = (tmp_path / "out" / "full" / f"{name}.engine" for name in ("rtx5080", "rtx5090"))
    assert first.read_bytes() == second.read_bytes()
    assert Bundle.open(tmp_path / "out", "digests")
