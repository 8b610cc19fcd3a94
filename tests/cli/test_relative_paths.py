"""Paths that are given relative are told so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from elastic_export.bundle import built
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.request import EngineRequest
from small_export import write_small
from text_engine import text_engine

ASKED = ("--checkpoint", "parent", "--budget", "small", "--target", "rtx5080", "--ops", "native", "--no-verify")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(request: EngineRequest, **more: object) -> EngineFacts:
        return text_engine(request, "an engine")

    monkeypatch.setattr(built, "build_engine", build)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("output", ["out", "below/out"])
def test_all_that_an_export_says(run, tmp_path: Path, output: str) -> None:
    write_small(tmp_path / "parent")
    (tmp_path / output).parent.mkdir(exist_ok=True)
    tmp_path.joinpath(f"{output}.x").with_name(".out.partial-1-0123abcd").mkdir()
    words = (*ASKED, "--max-context", "64", "--output", output)
    code, out, err = run(*words)
    assert code == 0, err
    assert f"bundle {output}: " in out
    assert f"elastic-export verify {output} --require engine" in out
    assert f"note: {Path(output).parent / '.out.partial-1-0123abcd'}: removed, left over from a killed export" in err
    code, planned, _ = run(*words, "--dry-run")
    assert (code, f"carried over from {output}: small with its engine\n" in planned) == (0, True)
    takes = json.loads(run(*words, "--dry-run", "--json")[1])["takes"]
    assert takes["carried_over"] == {
        "budgets": ["small"],
        "engines": ["small/rtx5080.engine"],
        "quantised_parent": False,
    }
    (tmp_path / output / "small" / "model.onnx").write_bytes(b"")
    code, again, more = run(*words)
    assert code == 0, more
    assert f"note: {output}/small/model.onnx: of another size than the manifest says, so not kept" in more
    (tmp_path / f"{output}.run.json").write_text("{}")
    code, _, refused = run(*words)
    assert (code, refused.startswith(f"error: {output}.run.json: expected none, or one that an export")) == (2, True)
    assert str(tmp_path) not in out + err + again + more + refused


def test_programs_are_told_the_whole_path(run, tmp_path: Path) -> None:
    """They may run elsewhere."""
    write_small(tmp_path / "parent")
    code, out, err = run(*ASKED, "--max-context", "64", "--output", "out", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["output"] == told["run"]["paths"]["bundle"] == str(tmp_path.resolve() / "out")


def test_the_bundle_of_a_merge_and_the_page_of_a_report(run, tmp_path: Path, demo_bundle: Path) -> None:
    shutil.copytree(demo_bundle, tmp_path / "part")
    code, out, err = run("merge", "part", "--output", "out")
    assert (code, out.splitlines()[-1].startswith("bundle out: ")) == (0, True), err
    assert run("report", "part")[:2] == (0, "part.html\n")
    assert run("merge", "part", "--output", "part/in")[2].startswith("error: output part/in: expected a folder of its")
