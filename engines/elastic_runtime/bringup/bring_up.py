"""`elastic-run BUNDLE --bring-up`: the first run on a card, in stages, and a report to send to whoever mends things.

Each stage is a process of its own with a time limit: a crash or a hang inside TensorRT ends that stage and no other.
Its JSON is on disk before the next begins. At the end, also of a run that is interrupted, there are a page of text and
a zip of all.
"""

from __future__ import annotations

import signal
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from elastic_runtime.bringup.modes import WHOLE_GRAPH
from elastic_runtime.bringup.place import CHILD, Place
from elastic_runtime.bringup.plan import Step, Task, plan
from elastic_runtime.bringup.process import TOO_LONG, WELL, run_stage
from elastic_runtime.bringup.results import NOT_RUN, Found, read_result, write_result
from elastic_runtime.bringup.stages import STAGES
from elastic_runtime.bringup.summary import summary
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.signals import handled

Say = Callable[[str], None]
_TAIL = 2000  # characters of a log that go into the text of a stage that crashed
_LEAST = 1.0  # seconds: with less left no stage is begun
_LEFT_OUT = (".cache", ".part")  # compiled kernels serve nobody else


def bring_up(
    path: Path,
    out: Path,
    *,
    plugins: Path | None = None,
    trust_engine: bool = False,
    external: Path | None = None,
    sources: Path | None = None,
    minutes: float = 12,
    say: Say,
) -> list[Step]:
    """Try the bundle on the card of this machine and leave a report.

    Args:
        path: the bundle.
        out: the zip to write; the stages' files lie beside it, in a folder of its name.
        plugins: a folder of plugin libraries.
        trust_engine: the caller vouches for the libraries inside engines.
        external: the folder of the parent's shards where the bundle only names them.
        sources: the folder of the plugins' sources, for their check of the kernels.
        minutes: that all stages may take together; the one that runs then is ended.
        say: hears of every stage.

    Returns:
        The stages that were run, in order.

    Raises:
        InputError: not a bundle, `out` is no name of a zip, it or the folder beside it is there already or cannot be
            made, or `minutes` is no time. No stage was begun then.
        KeyboardInterrupt: the run was interrupted, by Ctrl-C or a signal to end; the report of what was done is there.
    """
    bundle, folder = Bundle.open(path, external=external), _folder(out, minutes)
    place = Place(path, folder, plugins=plugins, trust_engine=trust_engine, external=external, sources=sources)
    report = _Report(place, time.monotonic() + 60 * minutes, minutes, say)
    with handled(signal.default_int_handler, "SIGTERM", "SIGHUP"):  # `timeout`, a closed terminal
        try:
            for task in plan(bundle, report.steps, report.note):
                report.run(task)
        except KeyboardInterrupt:
            report.note("interrupted: the stages after the last one named here were not begun")
            raise
        finally:
            with handled(signal.SIG_IGN, "SIGINT", "SIGTERM", "SIGHUP"):  # whoever is impatient presses Ctrl-C twice
                report.write(out)
    return report.steps


@dataclass
class _Report:
    """Runs tasks, each to a file of its own, and makes a page and a zip of them."""

    place: Place
    end: float  # by the monotonic clock
    minutes: float
    say: Say
    notes: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def note(self, text: str) -> None:
        """To be said at once, and on the page."""
        self.notes.append(text)
        self.say(text)

    def run(self, task: Task) -> None:
        """Run one, unless there is no time left for it."""
        left = self.end - time.monotonic()
        if left < _LEAST:
            self.note(f"{task.text()}: not begun, {self.minutes:g} minutes were over")
            return
        started, label = time.monotonic(), f"{len(self.steps):02}-{task.stage}"
        try:
            result = self._result(task, label, left)
        except BaseException as error:
            told = "it was interrupted" if isinstance(error, KeyboardInterrupt) else f"it did not begin: {error}"
            result = {"ended": told, "kind": type(error).__name__}
            raise
        finally:
            write_result(self.place.folder / f"{label}.json", {"task": task.text(), **result})
            self.steps.append(Step(task, time.monotonic() - started, result))
            self.say(self.steps[-1].text())

    def write(self, out: Path) -> None:
        """The page, and the zip of everything."""
        page = self.place.folder / "summary.txt"
        page.write_text(summary(self.notes, self.steps), "utf-8")
        part = out.with_suffix(".zip.part")  # on a full disk there is no half of one that looks like a whole one
        try:
            with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in sorted(self.place.folder.rglob("*")):
                    if file.is_file() and file.suffix not in _LEFT_OUT:
                        archive.write(file, file.relative_to(self.place.folder.parent).as_posix())
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
        self.say(f"{out}: the report; {page} is a page of it")

    def _result(self, task: Task, label: str, left: float) -> Found:
        if task.refused:
            return {"found": {NOT_RUN: task.refused}}
        place = replace(self.place, engine=task.engine, budget=task.budget, mode=task.mode or WHOLE_GRAPH)
        result, log = place.folder / f"{label}.json", place.folder / f"{label}.log"
        command = [sys.executable, *CHILD, task.stage, str(result), place.to_json()]
        limit = STAGES[task.stage].seconds
        ended = run_stage(command, log, min(limit, left))
        if found := read_result(result):  # what follows is the end of TensorRT and the driver, a finding as well
            return found if ended == WELL else {**found, "ended": ended}
        if left < limit and ended.startswith(TOO_LONG):
            ended += f": {self.minutes:g} minutes were over"
        return {"ended": ended, "last_words": log.read_text("utf-8", errors="replace")[-_TAIL:]}


def _folder(out: Path, minutes: float) -> Path:
    """The folder beside the zip, made. Raises InputError."""
    if not minutes > 0:
        raise InputError("minutes", expected="more than 0", found=f"{minutes:g}", todo="leave it out for 12")
    if out.suffix != ".zip":  # the folder would have the zip's name
        expected, todo = "a file name that ends in .zip", "name it as in --report bring-up.zip"
        raise InputError("the report", expected=expected, found=repr(out.name), todo=todo)
    folder = out.with_suffix("")
    if folder.exists() or out.exists():
        there = out if out.exists() else folder
        raise InputError(
            str(there), expected="a new place for the report", found="something there", todo="name another"
        )
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        expected, found = "a place that a folder can be made in", error.strerror or str(error)
        todo = "name another, as in --report bring-up.zip"
        raise InputError(str(folder), expected=expected, found=found, todo=todo) from error
    return folder
