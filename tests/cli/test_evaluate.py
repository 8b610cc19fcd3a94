"""`elastic-export evaluate` on the command line: what it prints and writes, and how it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from elastic_export.cli import evaluate as command
from elastic_export.evaluate.result import Evaluation
from elastic_export.plan.machine import Space
from small_text_model import TEXT, write_source

pytestmark = pytest.mark.usefixtures("one_thread")

Run = Callable[..., tuple[int, str, str]]


def test_a_table_json_and_a_picture(run: Run, model: Path, text: str, tmp_path: Path) -> None:
    files = ("--json", str(tmp_path / "found.json"), "--plot", str(tmp_path / "found.svg"))
    code, out, err = run("evaluate", str(model), "--text", text, "--precision", "fp32,bf16", "--context", "64", *files)
    assert code == 0, err
    found = Evaluation.read(tmp_path / "found.json")
    rows = [(row.budget, row.precision) for row in found.rows]
    assert rows == [(budget, precision) for budget in ("full", "small", "even") for precision in ("fp32", "bf16")]
    assert (found.subject.kind, found.subject.name, found.subject.dtype) == ("checkpoint", "model", "bf16")
    assert (found.reference.budget, found.reference.precision) == ("full", "fp32")
    assert found.text.bytes == len(TEXT.encode()) - 1
    assert out == found.table() + "\n"
    assert len(ET.parse(tmp_path / "found.svg").findall(".//*{http://www.w3.org/2000/svg}title")) == 12
    assert "this takes about" in err
    assert "evaluate text.txt" in err


def test_the_parent_is_added_where_it_was_not_asked_for(run: Run, model: Path, text: str, tmp_path: Path) -> None:
    request = ("--budget", "small", "--precision", "bf16", "--tokens", "40", "--json", str(tmp_path / "found.json"))
    code, _, err = run("evaluate", str(model), "--text", text, *request)
    assert code == 0, err
    found = Evaluation.read(tmp_path / "found.json")
    assert [(row.budget, row.precision) for row in found.rows] == [("full", "fp32"), ("small", "bf16")]
    assert 37 <= found.text.tokens <= 40


def test_a_checkpoint_without_budgets_is_its_parent_alone(run: Run, tmp_path: Path, text: str) -> None:
    bare = write_source(tmp_path / "bare")
    (bare / "elastic_config.json").unlink()
    code, out, err = run("evaluate", str(bare), "--text", text, "--tokens", "40")
    assert code == 0, err
    assert out.splitlines()[1].startswith("(parent)")
    assert "no elastic_config.json, so that the parent alone is evaluated" in err
    code, _, err = run("evaluate", str(bare), "--text", text, "--budget", "small")
    assert code == 2
    assert "expected the file elastic_config.json" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "smal"], "--budget: expected all, or of full, small, even, found 'smal' (nearest: small"),
        (["--precision", "fp8"], "--precision: expected of bf16, fp16, fp32, each once, found 'fp8'"),
        (["--precision", "fp32,fp32"], "found 'fp32,fp32'"),
        (["--context", "1"], "--context: expected 2 tokens or more"),
        (["--stride", "2000"], "--stride: expected from 1 to 1023 tokens"),
        (["--tokens", "0"], "--tokens: expected 1 or more, found 0"),
        (["--max-context", "0"], "--max-context: expected at least 1"),
        (["--text", "none.txt"], "none.txt: expected a text file, found No such file or directory"),
        (["--tokenizer", "."], ".: expected tokenizer.json, found no such file"),
        (["--json", "no/such/folder.json"], "expected a file in a folder that exists, found no such folder"),
        (["--weights-folder", "."], "--weights-folder: expected no such option, found it, but "),
        (["--plot", "."], "expected a file in a folder that exists, found a folder"),
        (["--plot", "loss.png"], "--plot: expected a name that ends in .svg, as the picture is one, found loss.png"),
        (["--plot", "loss"], "--plot: expected a name that ends in .svg, as the picture is one, found loss"),
    ],
)  # fmt: skip
def test_a_request_at_fault_is_refused_before_any_work(
    options: list[str], message: str, run: Run, model: Path, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("evaluate", str(model), "--text", text, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert "evaluate text.txt" not in err


@pytest.mark.parametrize("data", [b"", b"\xff\xfea\0", b"a"])
def test_a_text_at_fault_is_refused(data: bytes, run: Run, model: Path, text: str) -> None:
    Path(text).write_bytes(data)
    code, out, err = run("evaluate", str(model), "--text", text)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {text}: expected ")


def test_neither_a_checkpoint_nor_a_bundle_is_named(run: Run, text: str, tmp_path: Path) -> None:
    code, _, err = run("evaluate", str(tmp_path / "none"), "--text", text)
    assert code == 2
    assert err.startswith(f"error: {tmp_path / 'none'}: expected a folder or a Hugging Face repository id")


def test_a_nan_is_told_and_nothing_is_written(run: Run, text: str, tmp_path: Path) -> None:
    def spoil(weights: dict[str, Any]) -> None:
        weights["backbone.layers.2.mixer.q_proj.weight"] = np.full_like(
            weights["backbone.layers.2.mixer.q_proj.weight"], np.nan
        )

    source = write_source(tmp_path / "model", spoil)
    code, out, err = run("evaluate", str(source), "--text", text, "--json", str(tmp_path / "found.json"))
    assert (code, out) == (2, "")
    assert "tensor backbone.layers.2.mixer.q_proj.weight: expected finite values, found a NaN or an infinity" in err
    assert not (tmp_path / "found.json").exists()


def test_too_little_memory_is_refused_unless_it_is_allowed(
    run: Run, model: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "free_memory", lambda: Space(1 << 20, "this machine"))
    code, _, err = run("evaluate", str(model), "--text", text)
    assert code == 1
    assert "error: memory: expected about " in err
    assert "found 1.0 MiB on this machine" in err
    code, _, _ = run("evaluate", str(model), "--text", text, "--allow-short")
    assert code == 0


def test_a_bundle_is_evaluated_in_the_precision_that_it_ships(
    run: Run, demo_bundle: Path, text: str, tmp_path: Path
) -> None:
    request = ("--text", text, "--tokens", "60", "--budget", "small", "--json", str(tmp_path / "found.json"))
    code, out, err = run("evaluate", str(demo_bundle), *request, "--precision", "bf16")
    assert code == 0, err
    document = json.loads((tmp_path / "found.json").read_text())
    assert document["subject"] == {"kind": "bundle", "name": "random-demo", "dtype": "bf16"}
    assert document["reference"] == {"budget": "large", "precision": "fp32"}
    assert "weights of the bundle random-demo" in out
    code, _, err = run("evaluate", str(demo_bundle), *request, "--budgets", "b.json")
    assert code == 2
    assert "--budgets: expected no such option, found it, but " in err
    code, _, err = run("evaluate", str(demo_bundle), *request, "--precision", "fp16")
    assert code == 2
    assert "--precision: expected fp32 or bf16, found fp16, which the bundle does not ship" in err


@pytest.mark.parametrize("name", [b"a\xffb.txt", b"a\nb\x1b[31m.txt"])
def test_a_name_that_is_no_text_is_told_escaped(name: bytes, run: Run, model: Path, text: str, tmp_path: Path) -> None:
    odd, found, plot = tmp_path / os.fsdecode(name), tmp_path / "found.json", tmp_path / "plot.svg"
    odd.write_bytes(Path(text).read_bytes())
    request = ("--tokens", "20", "--budget", "small", "--json", str(found), "--plot", str(plot))
    code, out, err = run("evaluate", str(model), "--text", str(odd), *request)
    assert code == 0, err
    assert Evaluation.read(found).text.name.isprintable()
    assert "\x1b" not in out
    ET.fromstring(plot.read_bytes())


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (("--json", "text.txt"), "--json: expected another file than --text, found"),
        (("--plot", "./text.txt"), "--plot: expected another file than --text, found"),
        (("--json", "a", "--plot", "a"), "--plot: expected another file than --json, found"),
        (("--json", "link"), "--json: expected another file than --text, found"),
    ],
)
def test_no_output_takes_the_place_of_another_file(
    run: Run, model: Path, text: str, tmp_path: Path, files: tuple[str, ...], told: str
) -> None:
    (tmp_path / "link").symlink_to("text.txt")
    given = [name if name.startswith("--") else f"{tmp_path}/{name}" for name in files]
    before = Path(text).read_bytes()
    code, _, err = run("evaluate", str(model), "--text", text, "--budget", "small", "--tokens", "20", *given)
    assert (code, told in err) == (2, True), err
    assert Path(text).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "text.txt"]


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_no_output_takes_a_place_in_a_bundle(run: Run, demo_bundle: Path, text: str, option: str) -> None:
    before = (demo_bundle / "manifest.json").read_bytes()
    code, _, err = run("evaluate", str(demo_bundle), "--text", text, option, str(demo_bundle / "manifest.json"))
    assert (code, f"{option}: expected a place outside of the bundle" in err) == (2, True), err
    assert (demo_bundle / "manifest.json").read_bytes() == before
