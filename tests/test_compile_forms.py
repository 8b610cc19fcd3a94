"""Whole exports of budgets in both forms into one bundle, stand-ins for engines: what it is, what a name then means."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import elastic_runtime
from elastic_export.bundle import built
from elastic_export.bundle.digests import remembering_digests
from elastic_export.bundle.merge import merge_bundles
from elastic_export.bundle.unchanged import unchanged
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.cli.inspect import inspect
from elastic_export.cli.verify import verify as elastic_export_verify
from elastic_export.compile import ExportResult, export
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.request import EngineRequest
from elastic_export.evaluate.from_bundle import bundle_models
from elastic_export.layers.budget import Budget
from elastic_export.plan import job as planning
from elastic_export.plan.job import ExportOptions, plan_job
from elastic_export.progress import Progress
from elastic_export.report.facts import facts_of
from elastic_runtime import Request
from elastic_runtime.bundle import Bundle
from elastic_runtime.cli.run import command as elastic_run
from elastic_runtime.errors import InputError
from elastic_runtime.format.weights import SCHEMA, SCHEMA_INT8, WeightRecipe
from elastic_runtime.ort.open_onnx import card_needed
from elastic_runtime.verify.bundle_verification import verify_bundle
from quantised_checkpoint import write_quantised
from small_export import ARCH, SMALL, contents, small_weights, write_small
from text_engine import text_engine

# One worker: its exports share a trace.
pytestmark = [pytest.mark.usefixtures("exports_trace_once", "stand_ins"), pytest.mark.xdist_group("compile_forms")]

NAMES = ["full", "full.int8", "small", "small.int8"]


@pytest.fixture(scope="module")
def stand_ins() -> Iterator[None]:
    """Engines that are texts."""

    def build(request: EngineRequest, **more: object) -> EngineFacts:
        return text_engine(request, f"{request.dequantised} dequantised")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built, "build_engine", build)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_small(tmp_path_factory.mktemp("forms") / "parent")
    for file in folder.iterdir():
        os.utime(file, (1_600_000_000, 1_600_000_000))
    return folder


def run(source: Path, output: Path, quantise: str, budgets: str = "all", **options: Any) -> ExportResult:
    asked = {"max_tokens": 16, "max_contexts": (64,), "ops": "native", "quantise": quantise, **options}
    job = plan_job(Checkpoint.open(source), ExportOptions(budgets, "rtx5080", output, **asked), demo=False)
    with remembering_digests(distrust=False) as digests:
        return unchanged(job, Progress(), digests) or export(job, Progress(), digests=digests)


@pytest.fixture(scope="module")
def both(source: Path, tmp_path_factory: pytest.TempPathFactory, exports_trace_once: None, stand_ins: None) -> Path:
    """A verified bundle of both budgets in both forms; nobody changes it."""
    output = tmp_path_factory.mktemp("both") / "out"
    run(source, output, "none")
    run(source, output, "int8", add=True)
    return output


@pytest.fixture
def copy(both: Path, tmp_path: Path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(both, tmp_path / "copy"))


def test_a_bundle_has_its_budgets_in_both_forms(both: Path) -> None:
    out = both
    manifest = Bundle.open(out, "digests").manifest
    assert [budget.name for budget in manifest.budgets] == NAMES
    assert [budget.quantisation for budget in manifest.budgets] == [None, "int8"] * 2
    assert manifest.options["budgets"] == tuple(NAMES)
    assert manifest.options["quantize"] == ("int8", "none")
    for budget in manifest.budgets:
        recipe = WeightRecipe.read(out / str(budget.weights))
        assert recipe.schema == (SCHEMA_INT8 if budget.quantisation else SCHEMA)
        assert recipe.nbytes == budget.weight_bytes
        assert budget.golden is not None
        # Which budget has how many matrices, tests/test_compile_int8.py says.
        assert ((out / budget.engines[0].file).read_text() == "0 dequantised") == (budget.quantisation is None)
    assert sorted(path.name for path in (out / "weights").iterdir())[-1].startswith("q8-")
    assert verify_bundle(out).passed


def test_either_form_may_come_first(source: Path, both: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "back", "int8")
    run(source, tmp_path / "back", "none", add=True)
    assert contents(tmp_path / "back") == contents(both)


def test_what_is_there_in_both_forms_is_not_made_again(source: Path, copy: Path) -> None:
    for kind in ("none", "int8"):
        for budgets in ("all", "small"):
            assert not run(source, copy, kind, budgets, add=True).changed


def test_bundles_of_either_form_merge_to_one_of_both(source: Path, tmp_path: Path) -> None:
    parts = [tmp_path / kind for kind in ("none", "int8")]
    for part in parts:
        run(source, part, part.name, verify=False)
    merge_bundles(parts, tmp_path / "merged")
    run(source, parts[0], "int8", add=True, verify=False)
    assert contents(tmp_path / "merged") == contents(parts[0])


def test_the_bf16_form_of_a_quantised_parent_has_weights_of_its_own(tmp_path: Path) -> None:
    """As it must: no engine takes the parent's shards."""
    budgets = [Budget.full(ARCH, "full"), SMALL]
    source = write_quantised(tmp_path / "fp8", ARCH, small_weights(), lambda module: "FP8", budgets).folder
    forth, back = tmp_path / "forth", tmp_path / "back"
    run(source, forth, "none", weights="sliced")
    run(source, forth, "int8", add=True)
    run(source, back, "int8", verify=False)
    run(source, back, "none", add=True, weights="sliced")
    manifest = Bundle.open(forth).manifest
    assert (manifest.weight_mode, manifest.options["weights"]) == ("sliced", "sliced")
    assert [budget.name for budget in manifest.budgets] == NAMES
    assert verify_bundle(forth).passed
    run(source, back, "int8", add=True)  # and verifies what was not
    assert contents(back) == contents(forth)
    assert not run(source, forth, "int8", add=True).changed
    assert not run(source, forth, "none", add=True, weights="sliced").changed
    with pytest.raises(InputError, match="--add, weight_mode: expected as in the bundle, sliced, found embedded"):
        run(source, forth, "none", add=True, weights="embedded")


def test_without_add_the_other_form_goes(source: Path, copy: Path) -> None:
    out = copy
    inode = next((out / "weights").glob("q8-*")).stat().st_ino
    run(source, out, "int8")
    assert [budget.name for budget in Bundle.open(out).budgets] == ["full.int8", "small.int8"]
    [kept] = (out / "weights").iterdir()
    assert kept.stat().st_ino == inode  # not quantised again
    assert not (out / "full").exists()


def test_inspect_shows_both_forms(both: Path) -> None:
    done = CliRunner().invoke(inspect, [str(both)])
    assert done.exit_code == 0
    rows = [line.split() for line in done.output.splitlines()]
    assert [row[0] for row in rows if row and row[0] in NAMES] == NAMES
    # In the table, and behind it what rounding took.
    assert [row[0] for row in rows if "int8" in row[1:]] == ["full.int8", "small.int8", "full.int8:", "small.int8:"]


def test_the_page_shows_both_forms(both: Path) -> None:
    facts = facts_of(Bundle.open(both))
    assert [budget.name for budget in facts.budgets] == NAMES
    [(_, chart)] = facts.fits
    assert [bar.name for bar in chart.bars] == [f"{name} at 64, native" for name in NAMES]
    assert [engine.budget for engine in facts.engines] == NAMES


def test_a_session_takes_the_form_that_is_named_or_the_unquantised(both: Path) -> None:
    logits = {}
    for name in ("small", "small.bf16", "small.int8", "auto"):
        opener = elastic_runtime.Opener(Bundle.open(both), Request(budget=name, device="cpu"))
        with opener.open() as session:
            assert opener.budget is not None
            logits[name] = (opener.budget.name, session.prefill([[1, 2, 3]]))
    assert {name: entry for name, (entry, _) in logits.items()} == {
        "small": "small", "small.bf16": "small", "small.int8": "small.int8", "auto": "full",
    }  # fmt: skip
    plain, eight = (logits[name][1] for name in ("small", "small.int8"))
    assert 0 < np.abs(plain - eight).max() < 0.1 * np.abs(plain).max()  # eight bits of the same model


def test_an_evaluation_takes_the_names_of_forms(source: Path, both: Path, tmp_path: Path) -> None:
    def asked(bundle: Path, request: str) -> list[tuple[str, str]]:
        models, largest = bundle_models(Bundle.open(bundle), request)
        assert largest.name == "full"
        return [(model.name, model.quantisation.name if model.quantisation else "bf16") for model in models]

    run(source, tmp_path / "eight", "int8", verify=False)
    assert asked(both, "all") == [("full", "bf16"), ("full", "int8"), ("small", "bf16"), ("small", "int8")]
    assert asked(both, "small") == [("small", "bf16"), ("small", "int8")]
    assert asked(both, "small.bf16") == [("small", "bf16")]
    assert asked(both, "small.int8,full") == [("full", "bf16"), ("full", "int8"), ("small", "int8")]
    for request in ("small", "small.int8"):
        assert asked(tmp_path / "eight", request) == [("small", "int8")]
    expected = r"--budget: expected all, or of full, small, full\.bf16, full\.int8, small\.bf16, small\.int8, found"
    for request in ("small.fp16", "small.int8.int8", ""):
        with pytest.raises(InputError, match=expected):
            asked(both, request)
    with pytest.raises(InputError, match=r"--budget: expected all, or of full, small, full\.int8, small\.int8, found"):
        asked(tmp_path / "eight", "small.bf16")


def test_the_programs_take_a_form(both: Path) -> None:
    asked = ("--ids", "1,2,3", "--max-new", "2", "--device", "cpu", "--json")
    for name, entry in (("small", "small"), ("small.int8", "small.int8"), ("auto", "full")):
        done = CliRunner().invoke(elastic_run, [str(both), "--budget", name, *asked])
        assert json.loads(done.stdout)["budget"] == entry
    for command, more in ((elastic_run, ["--verify"]), (elastic_export_verify, list[str]())):
        done = CliRunner().invoke(command, [str(both), "--budget", "small.int8", *more])
        assert done.exit_code == 0
        lines = [line.strip() for line in done.stdout.splitlines()]
        assert any(line.startswith("small.int8/model.onnx: ok") for line in lines)
        assert "small/model.onnx: not run: another budget was asked for" in lines
    done = CliRunner().invoke(elastic_run, [str(both), "--budget", "small.fp16", *asked])
    assert isinstance(done.exception, InputError)


def test_a_session_goes_from_one_form_to_the_other(both: Path) -> None:
    opener = elastic_runtime.Opener(Bundle.open(both), Request(budget="small", device="cpu"))
    session = opener.open()
    first = session.prefill([[1, 2, 3]])
    session, logits, cost = opener.switch(session, "small.int8")
    assert cost.budget == "small.int8"
    session, again, _ = opener.switch(session, "small")
    session.close()
    assert not np.array_equal(first, logits)
    np.testing.assert_array_equal(first, again)


def test_a_form_that_is_not_there_is_refused(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", "none", "small", verify=False)
    bundle = Bundle.open(tmp_path / "out")
    text = "budget 'small.int8': expected a form in which the bundle has it: small, found none in int8. Name that one"
    asks: list[Callable[[], object]] = [
        lambda: bundle.budget("small.int8"),
        lambda: elastic_runtime.open(bundle, Request(budget="small.int8", device="cpu")),
        lambda: verify_bundle(tmp_path / "out", budget="small.int8"),
        lambda: bundle.choose(vram=1 << 30, budget="small.int8"),
    ]
    for ask in asks:
        with pytest.raises(InputError) as caught:
            ask()
        assert str(caught.value).startswith(text)


def test_verify_replays_the_form_that_is_named(copy: Path) -> None:
    out = copy
    for name, replayed in (("small.int8", ["small.int8"]), ("small", ["small", "small.int8"]), ("auto", NAMES)):
        found = verify_bundle(out, budget=name)
        assert found.passed
        assert [outcome.file.split("/")[0] for outcome in found.models if outcome.replay] == replayed
        assert all(outcome.not_run for outcome in found.models if not outcome.replay)
    damaged = next((out / "weights").glob("q8-*"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")
    assert not verify_bundle(out, budget="small.bf16").passed  # digests are of all files


def test_each_form_is_verified_by_what_it_is_made_of(both: Path) -> None:
    for budget in Bundle.open(both).budgets:
        report = json.loads((both / str(budget.report)).read_text())
        assert report["budget"] == budget.name
        assert report["passed"]


def test_a_bundle_that_calls_int8_budgets_as_others_still_runs_but_takes_no_more(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier exports wrote them."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(planning, "as_forms", lambda budgets, *_: list(budgets))
        run(source, out, "int8")
    bundle = Bundle.open(out, "digests")
    assert [(budget.name, budget.budget) for budget in bundle.budgets] == [("full", "full"), ("small", "small")]
    assert bundle.budget("small.int8") == bundle.budget("small")
    for name in ("small", "small.int8"):
        [model], _ = bundle_models(bundle, name)
        assert model.quantisation is not None
        assert (model.name, model.quantisation.name) == ("small", "int8")
    assert verify_bundle(out).passed
    for kind in ("none", "int8"):
        with pytest.raises(
            InputError, match=r"^--add, budget full: expected budgets called as now, full\.int8 in int8"
        ):
            run(source, out, kind, add=True)


def test_a_budget_with_the_name_of_a_form_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "named"
    copy.mkdir()
    for file in source.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    path = copy / "elastic_config.json"
    document = json.loads(path.read_text())
    document["budgets"]["Small.int8"] = document["budgets"]["small"]
    path.write_text(json.dumps(document))
    run(copy, tmp_path / "out", "none", "Small.int8", verify=False)  # alone it is a name as any
    with pytest.raises(InputError, match=r"^--quantize int8: expected no budget called 'small\.int8'"):
        run(copy, tmp_path / "out", "int8", "small", verify=False)
    run(source, tmp_path / "out", "int8", verify=False)
    document["budgets"]["small.int8"] = document["budgets"].pop("Small.int8")
    path.write_text(json.dumps(document))
    monkeypatch.setattr("elastic_export.compile.sub_model_graph", lambda *_: pytest.fail("begun before it was refused"))
    with pytest.raises(InputError, match=r"^--add, budget small\.int8: expected as in the bundle, int8, found bf16"):
        run(copy, tmp_path / "out", "none", "small.int8", add=True, verify=False)


def test_a_card_under_onnxruntime_needs_of_int8_what_a_plan_says_of_it(source: Path, both: Path) -> None:
    """The weights of `--dry-run`; in float32 besides what is not in int8, and one dequantised matrix."""
    bundle = Bundle.open(both)
    job = plan_job(Checkpoint.open(source), ExportOptions("all", "rtx5080", both, quantise="int8"), demo=False)
    planned = {size.name: size.weight_bytes for size in job.sizes}
    for form, plain in ((bundle.budget(f"{name}.int8"), bundle.budget(name)) for name in ("full", "small")):
        needs = [
            card_needed(budget, bundle.recipe(budget), context=64, batch=2, precision="bf16")
            for budget in (form, plain)
        ]
        inputs = bundle.recipe(form).inputs
        narrow = sum(item.nbytes for item in inputs if item.dtype == "bf16")
        largest = max(4 * item.nbytes for item in inputs if item.dtype == "int8")
        assert needs[0] - (needs[1] - 4 * plain.parameters) == planned[form.name] + narrow + largest
