"""Offsets of rows and tokens beyond 2^31 elements: a check that no memory of that size has to back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from mamba2_mixer.testing.runner import PLUGINS, SHIM, HostBuild

B, T, H, P, G, N, K = 65535, 65536, 128, 80, 8, 128, 4
INNER, CHANNELS = H * P, H * P + 2 * G * N
ROW, LAST = INNER + CHANNELS + H, B * T - 1
WANTED = {
    "z": LAST * ROW,
    "channels": LAST * ROW + INNER,
    "dt": LAST * ROW + INNER + CHANNELS,
    "y": LAST * INNER,
    "workspace": LAST * CHANNELS,
    "workspace_dt": B * T * CHANNELS + (B * H - 1) * T,
    "conv_state": (B - 1) * (K - 1) * CHANNELS,
    "ssm_state": (B * H - 1) * P * N,
}


def offsets(plugins: Path, shim: list[Path], folder: Path) -> dict[str, int] | str:
    """What the sources in `plugins` say, or why they end."""
    build = HostBuild(plugins=plugins, strict=False)
    source = Path(__file__).parent / "views_probe.cu"
    words = [*build.flags(), f"-I{plugins}", "-c", "-x", "c++", str(source), "-o", str(folder / "probe.o")]
    subprocess.run(["g++", *words], check=True)
    program = build.link([*shim, folder / "probe.o"], folder / "views_probe")
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    lines = (line.split() for line in done.stdout.splitlines())
    return {name: int(offset) for name, offset in lines} if done.returncode == 0 else done.stderr


@pytest.fixture(scope="module")
def shim(case_objects: dict[str, Path]) -> list[Path]:
    return [case_objects[source] for source in SHIM]


def test_offsets_are_whole(shim: list[Path], tmp_path: Path) -> None:
    assert min(WANTED.values()) > 2**31
    assert offsets(PLUGINS, shim, tmp_path) == WANTED


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("views.cuh", "token_index"),
        ("views.cuh", "conv_state_offset"),
        ("views.cuh", "ssm_state_offset"),
        ("prefill_workspace.cuh", "dt_of"),
        ("prefill_workspace.cuh", "prefill_workspace("),
    ],
)
def test_an_offset_of_32_bits_is_caught(file: str, name: str, shim: list[Path], tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    shutil.copytree(PLUGINS, plugins, ignore=shutil.ignore_patterns("__pycache__", "build*"))
    path = plugins / "mamba2_mixer" / file
    before, found, after = path.read_text().partition(name)
    assert found
    assert "static_cast<int64_t>(" in after
    path.write_text(before + found + after.replace("static_cast<int64_t>(", "static_cast<int32_t>(", 1))
    assert offsets(plugins, shim, tmp_path) != WANTED
