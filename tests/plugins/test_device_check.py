"""device_check without a GPU: its stages run on the host shim; a wrong kernel is not timed and fails the run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from device_check.matrix import OPS, Op
from mamba2_mixer.testing.runner import MAIN, QUICK

PROGRAM = Path(__file__).parents[2] / "plugins" / "device_check"
Report = dict  # of JSON


@pytest.fixture
def programs(case_runner: Path, host_library: Path, tmp_path: Path) -> Path:
    """A folder as `--build` names it, on the host shim; the library has float32 only."""
    folder = tmp_path / "build"
    folder.mkdir()
    shutil.copy(case_runner, folder / "case_runner")
    shutil.copy(host_library, folder / "libelastic_plugins.so")
    return folder


def check(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(PROGRAM), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU driver: run device_check itself")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = check("--report", tmp_path / "report")
    assert done.returncode == 2
    assert done.stderr == (
        "device_check: expected an NVIDIA GPU, found no nvidia-smi on this machine. Nothing was run.\n"
    )
    assert not (tmp_path / "report").exists()


def decode_only(programs: Path, report: Path) -> tuple[int, Report]:
    done = check("--device", "cpu", "--build", programs, "--report", report, "--only", "decode", "--minutes", "2")
    return done.returncode, json.loads((report / "report.json").read_text())


def test_right_kernels_are_checked_and_then_timed(programs: Path, tmp_path: Path) -> None:
    code, report = decode_only(programs, tmp_path / "report")
    (stage,) = report["stages"]
    assert code == 0
    assert report["passed"]
    kinds = [(f["kind"], f.get("batch")) for f in stage["findings"] if f["kind"] in {"check", "time"}]
    assert kinds == [("check", None), ("time", 1), ("check", None), ("time", 3)]
    checks = [f for f in stage["findings"] if f["kind"] == "check"]
    assert all(0 < f["errors"]["y"] < 1e-5 and not f["wrong"] for f in checks)
    assert checks[0]["what"] == "decode batch 1, 1 tokens, elastic decode_step"
    page = (tmp_path / "report" / "table.txt").read_text()
    assert "elastic decode_step" in page
    assert page.endswith("all correct\n")


def test_the_page_answers_which_kernel_auto_should_take(programs: Path, tmp_path: Path) -> None:
    """Of kernels that ran: with float32 activations, which the shim's build has, the gated ones do not."""
    words = ("--device", "cpu", "--build", programs, "--report", tmp_path / "report", "--only", "prefill")
    assert check(*words, "--minutes", "2").returncode == 0
    page = (tmp_path / "report" / "table.txt").read_text()
    for width in (8, 12):
        heads = f"P = {width}"
        assert f"\nBF16, {heads}: not known, chunk_prefill_gated and chunk_prefill_gated_resident were not " in page
        assert re.search(rf"\nFP16 \(timed in BF16\), {heads}: chunk_prefill(_resident)? at 20 tokens \(", page)
    assert "\n8192 tokens at 1.5 x mamba_ssm: not known, not timed side by side\n" in page


def test_a_wrong_kernel_is_not_timed_and_fails_the_run(
    programs: Path, quick_objects: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(QUICK.plugins, broken)
    source = broken / "mamba2_mixer" / "decode_step.cuh"
    text = source.read_text()
    assert text.count("silu(") > 0
    source.write_text(text.replace("silu(", "0.5f + silu("))
    build = type(QUICK)(float32_only=True, watch=(), optimize=False, strict=False, plugins=broken)
    launch = "mamba2_mixer/launch_float32.cu"
    objects = {**quick_objects, **build.compile([launch], tmp_path)}
    library = [path for name, path in objects.items() if name != MAIN]
    build.link(library, programs / "libelastic_plugins.so", shared=True)
    code, report = decode_only(programs, tmp_path / "report")
    assert code == 1
    assert not report["passed"]
    assert report["wrong"][0].startswith("decode batch 1, 1 tokens, elastic decode_step: y ")
    assert not [f for f in report["stages"][0]["findings"] if f["kind"] == "time"]


def test_the_small_cases_pass(programs: Path, tmp_path: Path) -> None:
    done = check("--device", "cpu", "--build", programs, "--report", tmp_path / "report", "--only", "smoke")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    checks = {f["what"]: f["wrong"] for f in report["stages"][0]["findings"] if f["kind"] == "check"}
    assert checks == {f"mixer {row}": "" for row in OPS[0].rows("small")}
    # The folder has no program for another op: then it is not proven.
    assert [what.split(":")[0] for what in report["unproven"]] == [f"all cases of {op.name}" for op in OPS[1:]]
    assert done.returncode == (3 if OPS[1:] else 0)


def test_long_cases_are_of_both_scans_on_tensor_cores_and_not_among_all() -> None:
    mixer = OPS[0]
    rows = mixer.rows("long")
    assert sorted(case.kernel for case in rows.values()) == ["chunk_prefill", "chunk_prefill_resident"]
    assert {(case.decay, case.tokens(0)) for case in rows.values()} == {("tiny", 65536)}
    assert not rows.keys() & mixer.rows("all").keys()


def test_long_cases_of_attention_are_of_as_many_rows_as_a_plugin_engine_is_made_for() -> None:
    assert "131071 rows" in OPS[1].rows("long")


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_small_cases_have_every_kernel(op: Op) -> None:
    assert {case.kernel for case in op.rows("small").values()} == {case.kernel for case in op.rows("all").values()}


@pytest.mark.skipif(len(OPS) == 1, reason="this tree has no op cached_attention")
@pytest.mark.parametrize("broken", [False, True])
def test_attention_is_checked_and_timed_as_the_mixer_is(
    broken: bool, quick_attention_objects: dict[str, Path], tmp_path: Path
) -> None:
    from cached_attention.testing import runner

    library = {source: path for source, path in quick_attention_objects.items() if source != runner.MAIN}
    if broken:
        plugins, source = tmp_path / "plugins", "cached_attention/c_api.cu"
        shutil.copytree(runner.QUICK.plugins, plugins)
        text = (plugins / source).read_text()
        assert text.count("Args args = *given;") == 1
        (plugins / source).write_text(text.replace("Args args = *given;", "Args args = *given;\n  args.scale *= 2;"))
        library |= replace(runner.QUICK, plugins=plugins, strict=False).compile([source], tmp_path)
    (tmp_path / "build").mkdir()
    runner.QUICK.link(library.values(), tmp_path / "build" / "libelastic_plugins.so", shared=True)
    stages = "attention decode,attention prefill"
    done = check("--device", "cpu", "--build", tmp_path / "build", "--report", tmp_path / "report", "--only", stages)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    found = [f for stage in report["stages"] for f in stage["findings"] if f["kind"] != "legend"]
    assert [f["kind"] for f in found] == (["check"] * 2 if broken else ["check"] * 2 + ["time"] * 2 + ["check", "time"])
    assert done.returncode == int(broken)


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA GPU on this machine")
@pytest.mark.timeout(1800)
def test_on_the_card(tmp_path: Path) -> None:
    done = check("--report", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
