"""Runs stages one after the other, each a process of its own with a deadline, and keeps the report on disk."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from device_check.place import Place
from device_check.report import Report, StageReport

_PROGRAM = Path(__file__).with_name("stage.py")
_PULSE = 0.05  # seconds between looks at a running stage
_WORDS = 1500  # characters of a dead stage's last output


@dataclass(frozen=True)
class Stage:
    """A stage: `module`.run(place).

    Attributes:
        limit: seconds it may take.
        least: seconds without which it is not begun.
        proves: whether correctness rests on it.
        behind: it runs beside the stages after it until one comes that wants the card `alone`.
        gated: it is skipped once something was found wrong.
    """

    name: str
    module: str
    limit: float
    least: float = 5.0
    proves: bool = False
    behind: bool = False
    alone: bool = False
    gated: bool = False
    options: dict[str, Any] = field(default_factory=dict)


class _Running:
    """A stage's process; `look` takes its findings and ends it at its deadline."""

    def __init__(self, stage: Stage, place: Place, report: Report, log: BinaryIO) -> None:
        place.scratch.mkdir(parents=True)
        place.findings.touch()
        order = place.scratch / "place.json"
        place.write(order)
        self.stage, self.place, self.report, self.read = stage, place, report, 0
        self.entry = report.add(stage.name, proves=stage.proves)
        self.begun = time.time()
        self.words = place.scratch / "words"
        with self.words.open("wb") as words:
            command = [sys.executable, str(_PROGRAM), stage.module, str(order)]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
            )
        self.log = log

    def look(self) -> bool:
        """Whether it still runs."""
        code = self.process.poll()
        self._take_findings()
        if code is None and time.time() < self.place.until:
            return True
        if code is None:
            self._end("late", f"ended after {time.time() - self.begun:.0f} s")
        elif code == 0:
            self._end("done", "")
        else:
            tail = self.words.read_text("utf-8", errors="replace")[-_WORDS:]
            self._end("died", f"exit {code}: {tail}")
        return False

    def _take_findings(self) -> None:
        whole = self.place.findings.read_bytes()[self.read :].rpartition(b"\n")
        if whole[1]:
            self.read += len(whole[0]) + 1
            self.entry.findings += [json.loads(line) for line in whole[0].splitlines()]
            self.report.flush()

    def _end(self, outcome: str, words: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # also what it started
        self.process.wait()
        self._take_findings()
        self.entry.outcome, self.entry.words = outcome, words
        self.entry.seconds = round(time.time() - self.begun, 1)
        self.report.flush()
        heading = f"\n=== {self.stage.name}: {outcome} {self.entry.seconds} s\n"
        self.log.write(heading.encode() + self.words.read_bytes())
        self.log.flush()
        say(self.entry)


def say(entry: StageReport) -> None:
    """A line about a stage that ended, and why where it was not well."""
    checks = [f for f in entry.findings if f["kind"] == "check"]
    wrong = sum(bool(f["wrong"]) for f in checks)
    counted = f", {len(checks)} checks, {wrong} wrong" if checks else ""
    last = f": {entry.words.strip().splitlines()[-1]}" if entry.words.strip() else ""
    print(f"{entry.name}: {entry.outcome} in {entry.seconds:.1f} s{counted}{last}", flush=True)


def run_all(stages: Sequence[Stage], place: Place, report: Report) -> None:
    """Runs them in order; `place.until` bounds all, `place.scratch` and `place.options` are the parts they share."""
    behind: list[_Running] = []
    with (place.report / "log.txt").open("wb") as log:
        for number, stage in enumerate(stages):
            if stage.alone:
                _wait(behind)
            reserved = sum(later.least for later in stages[number + 1 :])
            until = min(time.time() + stage.limit, place.until - reserved)
            why = ""
            if until - time.time() < stage.least:
                why = f"{max(0.0, until - time.time()):.0f} s left, it takes {stage.least:g}"
            elif stage.gated and report.wrong():
                why = f"what is wrong is not timed: {report.wrong()[0]}"
            if why:
                _skip(stage, report, why)
                continue
            folder = place.scratch / f"{number:02}-{stage.name}"
            own = replace(place, scratch=folder, until=until, options={**place.options, **stage.options})
            running = _Running(stage, own, report, log)
            behind.append(running)
            while not stage.behind and running.look():
                for other in behind[:-1]:
                    other.look()
                behind[:-1] = [other for other in behind[:-1] if other.entry.outcome == "running"]
                time.sleep(_PULSE)
            behind = [other for other in behind if other.entry.outcome == "running"]
        _wait(behind)


def _wait(behind: list[_Running]) -> None:
    while behind:
        behind[:] = [running for running in behind if running.look()]
        time.sleep(_PULSE)


def _skip(stage: Stage, report: Report, why: str) -> None:
    entry = report.add(stage.name, proves=stage.proves)
    entry.outcome, entry.words = "skipped", why
    report.flush()
    say(entry)
