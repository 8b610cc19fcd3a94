"""Processes with a time limit."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from elastic_runtime.bringup import process
from elastic_runtime.bringup.process import ask, run_stage


def _ended(pid: Path) -> bool:
    """Whether that process is gone, or a zombie that nobody waits for."""
    for _ in range(50):
        stat = Path("/proc") / pid.read_text().strip() / "stat"
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(("command", "told"), [("exit 3", "it ended with 3"), ("kill -11 $$", "signal 11 ended it")])
def test_how_it_ended_and_what_it_said(tmp_path: Path, command: str, told: str) -> None:
    log = tmp_path / "log"
    assert run_stage(["sh", "-c", f"echo out; echo err >&2; {command}"], log, 60) == told
    assert log.read_text() == "out\nerr\n"


@pytest.mark.parametrize(("wait", "limit"), [("wait", 1.0), ("exit 0", 60.0)])
def test_the_children_of_a_stage_end_with_it(tmp_path: Path, wait: str, limit: float) -> None:
    pid = tmp_path / "pid"
    run_stage(["sh", "-c", f"sleep 60 & echo $! > {pid}; {wait}"], tmp_path / "log", limit)
    assert _ended(pid)


def test_one_that_cannot_end_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As inside a driver that hangs, where SIGKILL does nothing."""
    monkeypatch.setattr(process, "_LAST", 0.2)
    monkeypatch.setattr(process, "_end_group", lambda ended: None)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda self: None)
    told = run_stage(["sleep", "3"], tmp_path / "log", 0.2)
    assert told == "it took more than 0.2 s and was ended, but does not go: it waits for the driver"


def test_an_answer_is_all_that_was_said_and_whether_it_is_whole() -> None:
    assert ask([sys.executable, "-c", "print('yes')"], 60) == ("yes\n", "")
    assert ask(["sh", "-c", "echo half; exit 9"], 60) == ("half\n", "it ended with 9")
    assert ask(["sh", "-c", "echo half; exec sleep 60"], 0.5) == ("half\n", "no answer within 0.5 s")
