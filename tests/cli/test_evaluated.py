"""What `evaluate` compares: quantised bundles and checkpoints with those that they come from, and what it refuses."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small_export
from elastic_export.bundle.results import ExportResult
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.cli.summary import result_json, summary
from elastic_export.evaluate.result import Evaluation, Source
from elastic_export.report.facts import facts_of
from elastic_runtime.bundle import Bundle
from elastic_runtime.format.safetensors import read_header
from quantised_checkpoint import write_quantised
from small_text_model import ARCH, write_source

pytestmark = pytest.mark.usefixtures("one_thread", "exports_trace_once")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """An export of one budget in int8."""
    output = tmp_path_factory.mktemp("int8") / "bundle"
    return small_export.run(model, output, "small", quantise="int8", verify=False, ops="native")


@pytest.fixture(scope="module")
def eight_bits(exported: ExportResult) -> Path:
    """Its bundle."""
    return exported.output


@pytest.fixture(scope="module")
def both(model: Path, eight_bits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the budget in bf16 beside it."""
    output = Path(shutil.copytree(eight_bits, tmp_path_factory.mktemp("both") / "bundle"))
    return small_export.run(model, output, "small", add=True, verify=False, ops="native").output


def test_summary_inspect_and_page_name_what_is_quantised(run: Run, model: Path, exported: ExportResult) -> None:
    entry = exported.manifest.budgets[0]
    size = f"{entry.weight_bytes / 1024:.1f} KiB int8"
    said = summary(exported, model)
    assert size in said
    lost = f"what int8 has lost on a text: elastic-export evaluate {exported.output} --against {model} --text FILE"
    rounding = json.loads((exported.output / "small.int8/report.json").read_text())["rounding"]
    worst = rounding["rows"][0]
    taken = f"small.int8: int8 weights are off by {rounding['error']:.2%}; most of all {worst['tensor']} row "
    taken += f"{worst['row']}, by {worst['error']:.2%}"
    assert said.splitlines()[-2:] == [taken, lost]
    [described] = json.loads(result_json(exported))["budgets"]
    assert (described["quantisation"], described["rounding"]) == ("int8", rounding)
    assert run("inspect", str(exported.output))[1].splitlines()[-1] == taken
    [inspected] = json.loads(run("inspect", str(exported.output), "--json")[1])["budgets"]
    assert inspected["rounding"] == rounding
    assert size in run("inspect", str(exported.output))[1]
    budget = facts_of(Bundle.open(exported.output)).budgets[0]
    assert budget.weights == size
    assert budget.bytes is not None
    assert [bar.name for bar in budget.bytes.bars].count("embedding") == 1
    [rows] = facts_of(Bundle.open(exported.output)).lost
    assert (rows.budget, rows.text) == ("small.int8", f"int8, all matrices together off by {rounding['error']:.2%}")
    assert rows.rows[0] == (worst["tensor"], str(worst["row"]), f"{worst['error']:.2%}")


def test_commands_of_a_summary_can_be_pasted_and_its_files_counted(
    run: Run, exported: ExportResult, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(exported.output, tmp_path / "a bundle;\n'q'"))
    said = summary(replace(exported, output=output), tmp_path / "my model")
    files = sum(path.is_file() for path in output.rglob("*"))
    assert f": {files} files, " in said
    replay, lost = (said[said.index(f"elastic-export {name} ") :] for name in ("verify", "evaluate"))
    assert shlex.split(replay)[2:5] == [str(output), "--require", "engine"]
    assert shlex.split(lost)[2:5] == [str(output), "--against", str(tmp_path / "my model")]
    assert "1 engine is built and has run on no card: " in said
    code, out, err = run("verify", str(output))
    assert code == 0
    assert f": {files} files, none damaged" in out
    assert f": reading {files} files" in err


def test_a_plain_bundle_has_lost_nothing_by_rounding(run: Run, model: Path, tmp_path: Path) -> None:
    result = small_export.run(model, tmp_path / "out", "small", verify=False, ops="native")
    assert "are off by" not in summary(result, model) + run("inspect", str(result.output))[1]
    assert json.loads(result_json(result))["budgets"][0]["rounding"] is None
    assert facts_of(Bundle.open(result.output)).lost == ()


def without_names(found: Evaluation) -> tuple[object, ...]:
    """Of loss and rows what does not depend on where the weights were."""
    assert found.loss is not None
    return found.loss.text, found.loss.weights, [replace(row, source=None) for row in found.rows]


def test_what_int8_loses_is_the_same_before_and_after_the_export(
    run: Run, model: Path, eight_bits: Path, text: str, tmp_path: Path
) -> None:
    request = ("--text", text, "--tokens", "60", "--budget", "small", "--json", str(tmp_path / "found.json"))
    code, before, err = run("evaluate", str(model), *request, "--quantize", "int8")
    assert code == 0, err
    found = Evaluation.read(tmp_path / "found.json")
    assert [(row.budget, row.quantisation) for row in found.rows] == [
        ("full", None),
        ("small", None),
        ("small", "int8"),
    ]
    assert found.loss is not None
    assert found.loss.against == "model"
    [loss] = found.loss.text
    assert 0 < loss.kl_divergence < 0.1
    assert [layer.layer for layer in loss.layers] == [i for i in range(len(ARCH.pattern)) if i not in (3, 7)]
    assert loss.bits_per_byte == found.rows[2].bits_per_byte - found.rows[1].bits_per_byte
    request = (*request, "--against", str(model), "--tokenizer", str(model))
    code, after, err = run("evaluate", str(eight_bits), *request)
    assert code == 0, err
    shipped = Evaluation.read(tmp_path / "found.json")
    assert without_names(shipped) == without_names(found)
    assert [row.source for row in found.rows] == [None] * 3
    assert [row.source for row in shipped.rows] == [Source("checkpoint", "model", "bf16")] * 2 + [None]
    assert "VRAM of what is quantised is that of the engine that it goes into" in before
    assert "lost by quantising, against the same budget of model:" in before
    assert before.split("lost by")[1] == after.split("lost by")[1]
    assert f"{found.loss.weights[0].rows[0].tensor} row {found.loss.weights[0].rows[0].row}" in after


def test_a_page_shows_what_either_command_has_measured(
    run: Run, model: Path, eight_bits: Path, both: Path, text: str, tmp_path: Path
) -> None:
    """Of the checkpoint before the export, or of the bundle: the manifest calls `small.int8` what both call small."""
    file, page = tmp_path / "loss.json", str(tmp_path / "page.html")
    request = ("--text", text, "--tokens", "20", "--budget", "small", "--tokenizer", str(model), "--json", str(file))
    commands = {
        "bf16": (str(model), "--quantize", "int8"),
        "bf16 (against)": (str(eight_bits), "--against", str(model)),
    }
    for plain, command in commands.items():
        code, _, err = run("evaluate", *command, *request)
        assert code == 0, err
        for bundle in (eight_bits, both):
            code, _, err = run("report", str(bundle), "--evaluation", str(file), "--output", page)
            assert code == 0, err
            loss = facts_of(Bundle.open(bundle), Evaluation.read(file)).loss
            assert loss is not None
            assert [row[:2] for row in loss.rows] == [("small", plain), ("small", "int8")]
            assert loss.quantised is not None
            assert [row[:2] for row in loss.quantised.rows] == [("small", "int8")]
            assert [weights.budget for weights in loss.quantised.weights] == ["small"]


def test_of_a_bundle_of_both_forms_the_quantised_one_is_compared(
    run: Run, model: Path, eight_bits: Path, both: Path, text: str, tmp_path: Path
) -> None:
    found = {}
    for bundle in (eight_bits, both):
        file = tmp_path / "found.json"
        request = ("--text", text, "--tokens", "20", "--tokenizer", str(model), "--json", str(file))
        code, _, err = run("evaluate", str(bundle), *request, "--against", str(model))
        assert code == 0, err
        assert ("left out, since it is not quantised: small.bf16" in err) == (bundle == both)
        found[bundle] = Evaluation.read(file)
    assert without_names(found[both]) == without_names(found[eight_bits])
    code, out, err = run("evaluate", str(both), *request, "--against", str(model), "--budget", "small.bf16")
    assert (code, out) == (2, "")
    assert "--against: expected quantised weights to compare, found small" in err


def test_a_bundle_of_both_forms_has_a_row_for_each(
    run: Run, model: Path, both: Path, text: str, tmp_path: Path
) -> None:
    file = tmp_path / "found.json"
    request = ("--text", text, "--tokens", "20", "--tokenizer", str(model), "--json", str(file))
    for budget, forms in (("all", [None, "int8"]), ("small.bf16", [None]), ("small.int8", [None, "int8"])):
        code, out, err = run("evaluate", str(both), *request, "--budget", budget)
        assert code == 0, err
        assert ("against small in fp32, weights bf16;" in out) == ("int8" in forms)
        found = Evaluation.read(file)
        assert [(row.budget, row.quantisation) for row in found.rows] == [("small", form) for form in forms]
        loss = facts_of(Bundle.open(both), found).loss
        assert loss is not None
        assert [row[0] for row in loss.rows] == ["small"] * len(forms)


def test_what_a_bundle_without_plain_budgets_is_compared_with_is_named(
    run: Run, model: Path, eight_bits: Path, text: str, tmp_path: Path
) -> None:
    file = tmp_path / "found.json"
    request = ("--text", text, "--tokens", "20", "--tokenizer", str(model), "--json", str(file))
    code, out, err = run("evaluate", str(eight_bits), *request)
    assert code == 0, err
    assert "against small in fp32, weights int8;" in out
    assert Evaluation.read(file).reference.quantisation == "int8"


def test_a_quantised_checkpoint_against_the_one_before(run: Run, text: str, tmp_path: Path) -> None:
    """Whose tensors have another first word in their names."""
    model = write_source(tmp_path / "model", plain=True)
    before = Checkpoint.open(model)
    weights = {name: np.asarray(before.read(name), np.float32) for name in before.tensors}
    wanted = "backbone.layers.1.mixer.up_proj"

    def kind(module: str) -> str | None:
        return "FP8" if module == wanted.replace("backbone", "model") else None

    written = write_quantised(tmp_path / "fp8", ARCH, weights, kind, list(before.budgets.values()), prefix="model")
    request = ("--text", text, "--tokens", "20", "--tokenizer", str(model), "--json", str(tmp_path / "found.json"))
    code, out, err = run("evaluate", str(written.folder), *request, "--against", str(model), "--budget", "full")
    assert code == 0, err
    loss = Evaluation.read(tmp_path / "found.json").loss
    assert loss is not None
    assert "FP8 weights are off by" in out
    name = f"{wanted}.weight"
    apart = np.linalg.norm(written.worth[name.replace("backbone", "model")] - weights[name], axis=1)
    lost = apart / np.linalg.norm(weights[name], axis=1)
    [found] = loss.weights
    assert {row.tensor for row in found.rows} == {name}
    assert (found.rows[0].row, found.rows[0].error) == (int(lost.argmax()), pytest.approx(float(lost.max()), rel=1e-6))
    [measured] = loss.text
    assert (measured.quantisation, measured.embedding, measured.layers[0].error) == ("FP8", 0.0, 0.0)
    assert measured.layers[1].error > 0


def test_a_quantised_bundle_alone_says_how_its_loss_is_measured(
    run: Run, model: Path, eight_bits: Path, text: str
) -> None:
    code, out, err = run("evaluate", str(eight_bits), "--text", text, "--tokens", "20", "--tokenizer", str(model))
    assert code == 0, err
    assert "quantised; --against CHECKPOINT measures what that has lost" in err
    assert "lost by" not in out


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("bundle", ["--against", "{gone}"], "--against: expected a folder or a Hugging Face repository id"),
        ("bundle", ["--against", "{other}"], "other: expected model with the fingerprint "),
        ("bundle", ["--quantize", "int8"], "--quantize: expected no such option, found it, but"),
        ("bundle", ["--ignore-config", "x"], "--ignore-config: expected no such option, found it, but"),
        ("plain", ["--against", "{model}"], "--against: expected quantised weights to compare, found large"),
        ("model", ["--against", "{model}"], "--against: expected quantised weights to compare, found full"),
        ("model", ["--quantize", "int8", "--precision", "fp16"], "found fp16 with --quantize int8"),
        ("model", ["--quantize", "int8", "--against", "{plain}"], "config.json: expected a JSON file"),
    ],
)  # fmt: skip
def test_a_loss_that_cannot_be_measured_is_refused(
    path: str,
    options: list[str],
    message: str,
    run: Run,
    model: Path,
    eight_bits: Path,
    demo_bundle: Path,
    text: str,
    tmp_path: Path,
) -> None:
    def other(weights: dict[str, Any]) -> None:
        weights["lm_head.weight"][0, 0] += 1

    places = {"model": model, "bundle": eight_bits, "plain": demo_bundle, "gone": tmp_path / "gone"}
    if "{other}" in options:
        places["other"] = write_source(tmp_path / "other", other)
    given = [option.format(**places) for option in options]
    request = ("--text", text, "--tokens", "20", "--tokenizer", str(model), "--json", str(tmp_path / "found.json"))
    code, out, err = run("evaluate", str(places[path]), *request, *given)
    assert (code, out) == (2, ""), err
    assert message in err
    assert not (tmp_path / "found.json").exists()


def test_a_nan_in_what_is_compared_with_is_told(
    run: Run, text: str, eight_bits: Path, model: Path, tmp_path: Path
) -> None:
    """In the middle of a tensor, where the fingerprint does not look."""
    spoilt = tmp_path / "spoilt"
    shutil.copytree(model, spoilt, copy_function=shutil.copyfile)
    name = "lm_head.weight"
    [(shard, entry)] = [
        (shard, entries[name]) for shard in spoilt.glob("*.safetensors") if name in (entries := read_header(shard))
    ]
    data = bytearray(shard.read_bytes())
    at = entry.offset + entry.nbytes // 2 // 2 * 2
    data[at : at + 2] = b"\xff\x7f"
    shard.write_bytes(data)
    request = ("--text", text, "--tokens", "20", "--tokenizer", str(model), "--json", str(tmp_path / "found.json"))
    code, out, err = run("evaluate", str(eight_bits), *request, "--against", str(spoilt))
    assert (code, out) == (2, "")
    assert f"tensor {name}: expected finite values, found a NaN or an infinity" in err
    assert not (tmp_path / "found.json").exists()


def test_no_text_is_refused(run: Run, eight_bits: Path, model: Path) -> None:
    code, out, err = run("evaluate", str(eight_bits), "--against", str(model))
    assert (code, out) == (2, "")
    assert "Missing option '--text'" in err
