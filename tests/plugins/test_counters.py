"""The counters of a plugin instance: zeroed on the stream that uses them, allocated before anything is recorded."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from mamba2_mixer.testing.runner import PLUGINS

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on the path")
    program = tmp_path_factory.mktemp("counters") / "counters_order"
    include = ["-I", HERE / "recording_cuda", "-I", PLUGINS]
    subprocess.run([compiler, "-std=c++17", "-Wall", *include, HERE / "counters_order.cpp", "-o", program], check=True)
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    told = dict(line.split(": ", 1) for line in lines)
    return {name: [step for step in steps.split("; ") if step] for name, steps in told.items()}


def test_the_first_call_zeroes_them_on_its_stream(scenes: dict[str, list[str]]) -> None:
    """Not on the legacy stream, with which a non-blocking one has no order."""
    assert scenes["decode"] == ["malloc 2048", "set 2048 to 0 on s", "kernel", "kernel", "free"]


def test_what_is_only_recorded_is_not_taken_for_done(scenes: dict[str, list[str]]) -> None:
    """A capture may be thrown away: the next call finds what cudaMalloc left, or zeroes it itself."""
    first = ["malloc 2048", "set 2048 to 0 on s", "kernel"]
    assert scenes["a capture that may never be launched"] == [*first, "set 2048 to 0 on s", "kernel", "kernel", "free"]


def test_a_new_shape_begins_with_zeros_again(scenes: dict[str, list[str]]) -> None:
    kernels = ["set 2048 to 0 on s", "kernel"]
    assert scenes["another shape"] == ["malloc 2048", *kernels, *kernels, "free"]


def test_an_older_block_lives_as_long_as_a_graph_may_hold_it(scenes: dict[str, list[str]]) -> None:
    first, second = ["malloc 32", "set 32 to 0 on s", "kernel"], ["malloc 64", "set 64 to 0 on s", "kernel"]
    assert scenes["more rows than were foreseen"] == [*first, *second, "free", "free"]


def test_no_memory_is_an_error_when_it_is_needed_and_not_before(scenes: dict[str, list[str]]) -> None:
    assert scenes["no card while an engine is built"] == ["malloc 2048"]
    wanted = ["malloc 2048", "malloc 32", "Mamba2Mixer: memory for counters: out of memory"]
    assert scenes["no memory when it is needed"] == wanted


def test_prefill_needs_none(scenes: dict[str, list[str]]) -> None:
    assert scenes["prefill"] == ["kernel without counters"]
