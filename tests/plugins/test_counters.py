"""The counters of a plugin instance: zeroed where they are allocated, and in no call, recorded or not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from mamba2_mixer.testing.runner import PLUGINS

HERE = Path(__file__).parent
RELAXED, GLOBAL = "mode relaxed", "mode global"
NO_MEMORY = "Mamba2Mixer: memory for counters: out of memory"
OTHER_ERROR = "Mamba2Mixer: memory for counters: another error"


def allocation(size: int) -> list[str]:
    """On a stream that no capture has, in a mode that no capture forbids, and waited for."""
    zeroing = ["stream", f"malloc {size}", f"set {size} to 0 on its own", "wait for its own", "end of its own"]
    return [RELAXED, *zeroing, GLOBAL]


def end(blocks: int = 1) -> list[str]:
    """Of an instance: a capture may be under way then too."""
    return [RELAXED, *["free"] * blocks, GLOBAL]


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


def test_they_are_zeroed_where_they_are_allocated(scenes: dict[str, list[str]]) -> None:
    assert scenes["attach"] == [*allocation(2048), *end()]


def test_a_call_asks_nothing_of_cuda(scenes: dict[str, list[str]]) -> None:
    """Whatever its shape and whoever records it: a kernel that finds zeros is all that a graph can hold."""
    decode, prefill = ["call", "kernel"], ["call", "kernel that counts nothing"]
    assert scenes["decode"] == ["attached", *decode * 4, *end()]
    assert scenes["prefill"] == ["attached", *prefill * 2, *decode, *prefill, *decode, *end()]
    assert scenes["recorded"] == ["attached", *decode, *prefill, *decode, *end()]


def test_prefill_needs_none(scenes: dict[str, list[str]]) -> None:
    got_none = ["attached", "call", "kernel that counts nothing", *end(0)]
    assert scenes["prefill of a plugin that got no memory"] == got_none


def test_an_older_block_lives_as_long_as_a_graph_may_hold_it(scenes: dict[str, list[str]]) -> None:
    grown = ["call", *allocation(64), "kernel"]
    assert scenes["more rows than were foreseen"] == ["attached", "call", "kernel", *grown, "call", "kernel", *end(2)]


@pytest.mark.parametrize("who", ["this thread", "another"])
def test_memory_may_come_and_go_while_something_is_recorded(who: str, scenes: dict[str, list[str]]) -> None:
    steps = scenes[f"recorded by {who}, more rows than were foreseen"]
    assert steps == ["attached", "call", *allocation(64), "kernel", *end(2)]


def test_the_mode_of_the_thread_is_given_back(scenes: dict[str, list[str]]) -> None:
    former = [step.replace("global", "thread-local") for step in (*allocation(32), *end())]
    assert scenes["a thread of another mode"] == former


def test_without_a_card_an_instance_is_none_the_worse(scenes: dict[str, list[str]]) -> None:
    assert scenes["no card while an engine is built"] == [RELAXED, "stream", GLOBAL, *end(0)]


@pytest.mark.parametrize(
    ("failing", "steps", "said"),
    [
        ("stream", ["stream"], OTHER_ERROR),
        ("malloc", ["stream", "malloc 32", "end of its own"], NO_MEMORY),
        ("set", ["stream", "malloc 32", "set 32 to 0 on its own", "end of its own", "free"], OTHER_ERROR),
        (
            "wait",
            ["stream", "malloc 32", "set 32 to 0 on its own", "wait for its own", "end of its own", "free"],
            OTHER_ERROR,
        ),
    ],
)
def test_a_failure_is_told_and_leaves_nothing(
    failing: str, steps: list[str], said: str, scenes: dict[str, list[str]]
) -> None:
    """No memory, no mode, no error for somebody else to find."""
    assert scenes[f"no {failing}"] == [RELAXED, *steps, GLOBAL, said, *end(0)]


def test_a_mode_that_was_not_exchanged_is_not_exchanged_back(scenes: dict[str, list[str]]) -> None:
    """What CUDA then says to the next step is what is told."""
    assert scenes["no mode"] == [RELAXED, "the recording is lost", OTHER_ERROR, RELAXED]


def test_no_memory_at_first_is_no_error_once_there_is_some(scenes: dict[str, list[str]]) -> None:
    assert scenes["memory at the second try"] == ["attached", "call", *allocation(32), "kernel", *end()]
