"""Stages of device_check: deadlines, what comes back of one that dies, a report that is whole at every moment."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from device_check.place import Place
from device_check.report import Report
from device_check.schedule import Stage, run_all

#: Modules of stages, as `--only` never sees them.
MODULES = {
    "good": "place.emit('check', what='a', errors={'y': 1e-9}, wrong='')",
    "wrong": "place.emit('check', what='b', errors={'y': 1.0}, wrong='y 1 above 0.1')",
    "wrong_peer": "place.emit('check', what='p', errors={}, wrong='far', peer=True)",
    "dies": "place.emit('note', what='before'); import os, signal; print('last words', flush=True);"
    " os.kill(os.getpid(), signal.SIGSEGV)",
    "hangs": "import subprocess, sys; place.emit('note', what='before');"
    " subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])",
    "half_a_line": 'open(place.findings, \'a\').write(\'{"kind": "note", "what"\'); sys.exit(3)',
    "counts": "[place.emit('note', what=n) for n in place.in_time([('first', 0.5), ('second', 60), ('third', 0.5)])]",
}


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, line in MODULES.items():
        (tmp_path / f"stage_{name}.py").write_text(f"import sys\ndef run(place):\n    {line}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def run(tmp_path: Path, *stages: Stage, seconds: float = 60) -> tuple[Report, dict]:
    folder = tmp_path / "report"
    folder.mkdir()
    place = Place(tmp_path, None, tmp_path / "scratch", folder, time.time() + seconds, "cpu")
    report = Report(folder, "no card")
    run_all(stages, place, report)
    return report, json.loads((folder / "report.json").read_text())


def stage(name: str, limit: float = 30, **more: object) -> Stage:
    return Stage(name, f"stage_{name}", limit, **more)  # type: ignore[arg-type]


def test_all_that_ran_is_there(tmp_path: Path) -> None:
    report, written = run(tmp_path, stage("good", proves=True), stage("counts", limit=20))
    assert [(s["name"], s["outcome"]) for s in written["stages"]] == [("good", "done"), ("counts", "done")]
    assert written["passed"]
    assert report.passed()
    assert written["stages"][0]["findings"] == [{"kind": "check", "what": "a", "errors": {"y": 1e-9}, "wrong": ""}]


def test_what_time_does_not_suffice_for_is_skipped_by_name(tmp_path: Path) -> None:
    report, _ = run(tmp_path, stage("counts", limit=20))
    assert [f["what"] for f in report.findings("note")] == ["first", "third"]
    (skipped,) = report.findings("skipped")
    assert skipped["what"] == "second"
    assert skipped["why"].startswith("takes 60 s, ")


def test_a_stage_that_would_come_too_late_is_not_begun(tmp_path: Path) -> None:
    report, _ = run(tmp_path, stage("good", least=40), stage("wrong", least=25, proves=True), seconds=60)
    assert [(s.name, s.outcome) for s in report.stages] == [("good", "skipped"), ("wrong", "done")]
    assert report.stages[0].words.endswith("it takes 40")  # the later stage has its time reserved
    (tmp_path / "again").mkdir()
    report, _ = run(tmp_path / "again", stage("good", least=70, proves=True), seconds=60)
    assert report.unproven()[0].endswith("s left, it takes 70")
    assert not report.passed()
    assert not report.wrong()


def test_a_stage_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    begun = time.time()
    report, written = run(tmp_path, stage("hangs", limit=6, proves=True), stage("good"))
    assert time.time() - begun < 30
    assert [s["outcome"] for s in written["stages"]] == ["late", "done"]
    assert written["stages"][0]["findings"] == [{"kind": "note", "what": "before"}]
    assert written["unproven"] == ["hangs: late, ended after 6 s"]
    assert not report.passed()


@pytest.mark.parametrize(("name", "words"), [("dies", "exit -11: last words"), ("half_a_line", "exit 3: ")])
def test_a_stage_that_dies_leaves_the_report_whole(tmp_path: Path, name: str, words: str) -> None:
    report, written = run(tmp_path, stage(name, proves=True), stage("good"))
    assert [s["outcome"] for s in written["stages"]] == ["died", "done"]
    assert written["stages"][0]["words"].startswith(words)
    assert written["stages"][0]["findings"] == ([{"kind": "note", "what": "before"}] if name == "dies" else [])
    assert not report.passed()


def test_nothing_is_timed_after_something_was_wrong(tmp_path: Path) -> None:
    report, written = run(tmp_path, stage("wrong"), stage("good", gated=True))
    assert written["wrong"] == ["b: y 1 above 0.1"]
    assert (report.stages[1].outcome, report.stages[1].words) == (
        "skipped",
        "what is wrong is not timed: b: y 1 above 0.1",
    )


def test_a_wrong_peer_is_its_own_affair(tmp_path: Path) -> None:
    report, _ = run(tmp_path, stage("wrong_peer"), stage("good", gated=True))
    assert report.passed()
    assert report.stages[1].outcome == "done"


def test_one_that_runs_behind_is_waited_for_by_one_that_wants_the_card(tmp_path: Path) -> None:
    slow = "import time; time.sleep(2); place.emit('note', what='slow')"
    (tmp_path / "stage_slow.py").write_text(f"def run(place):\n    {slow}\n")
    report, _ = run(tmp_path, stage("slow", behind=True), stage("good"), stage("wrong", alone=True))
    ends = {s.name: s for s in report.stages}
    assert ends["slow"].outcome == ends["good"].outcome == "done"
    assert ends["slow"].findings
    assert ends["good"].seconds < 2 <= ends["slow"].seconds
