"""device_check without a GPU: it says so; and its checks, which are the same on a card, hold on the host shim."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mamba2_mixer import device_check
from mamba2_mixer.testing.cases import matrix

SCRIPT = Path(device_check.__file__)


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU driver: run device_check itself")
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "device_check: expected an NVIDIA GPU, found no nvidia-smi on this machine. Nothing was run.\n"
    )


def test_checks_pass_and_fail_as_they_should(
    case_runner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {name: row for name, row in matrix().items() if name in device_check.SANITIZED}
    monkeypatch.setattr(device_check, "matrix", lambda: rows)
    report = device_check.check_all({"case_runner": case_runner}, tmp_path, bench=False)
    assert report["passed"]
    assert report["case_runner"]["cases"] == len(rows) == len(device_check.SANITIZED)
    assert 0 < report["case_runner"]["worst"]["bfloat16"]["y"] < 4e-3
    assert "compute-sanitizer was not found: not run" in capsys.readouterr().out or shutil.which("compute-sanitizer")
    monkeypatch.setattr(
        device_check, "tolerances", lambda _: dict.fromkeys(("y", "ssm_state_out", "conv_state_out", "kept"), 0.0)
    )
    failed = device_check.check_all({"case_runner": case_runner}, tmp_path, bench=True)
    assert not failed["passed"]
    assert "bench" not in failed


@pytest.mark.gpu
@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA GPU on this machine")
@pytest.mark.timeout(1800)
def test_on_the_card() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_bench_table(capsys: pytest.CaptureFixture[str]) -> None:
    line = {"batch": 64, "tokens": 1, "layers": 28, "us": 190.5, "gb_s": 3600.0, "of_copy": 0.85}
    device_check.print_bench([{"device": "card", "copy_gb_s": 4235.0}, line, {"copy_gb_s_after": 4233.0}])
    said = capsys.readouterr().out.splitlines()
    assert said[-1].split() == ["64", "1", "28", "190.50", "3600", "85.0%"]


def test_sanitized_rows_exist() -> None:
    assert set(device_check.SANITIZED) <= set(matrix())
    assert all(np.sum(row.calls) < 250 for row in map(matrix().get, device_check.SANITIZED) if row)
    assert replace(matrix()["decode base"]).kernel == "auto"
