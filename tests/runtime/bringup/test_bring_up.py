"""A bring-up as a whole, stages left out or replaced: what is planned, what is on disk, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elastic_runtime.bringup import bring_up as module
from elastic_runtime.bringup.bring_up import bring_up
from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.plan import Step, Task
from elastic_runtime.bringup.results import Found
from elastic_runtime.bringup.stages import STAGES
from elastic_runtime.bringup.summary import summary
from elastic_runtime.cli.run import command
from elastic_runtime.errors import InputError

Program = Callable[[str, str], Path]


def _silent(text: str) -> None:
    """Nobody listens."""


def _run(bundle: Path, folder: Path, stage: str = "machine", **given: Any) -> Step:
    """One stage, in its process."""
    folder.mkdir(exist_ok=True)
    report = module._Report(Place(bundle, folder, **given), time.monotonic() + 600, 10, _silent)
    report.run(Task(stage))
    return report.steps[0]


@pytest.mark.parametrize("name", ["report", "", "report.tar"])
def test_a_report_that_is_no_zip_is_refused_before_the_first_stage(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "run_stage", lambda *_: pytest.fail("a stage began"))
    with pytest.raises(InputError, match=r"expected a file name that ends in \.zip"):
        bring_up(demo_bundle, Path(name), say=_silent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_no_time_is_refused(demo_bundle: Path, tmp_path: Path, minutes: float) -> None:
    with pytest.raises(InputError, match="minutes: expected more than 0"):
        bring_up(demo_bundle, tmp_path / "r.zip", minutes=minutes, say=_silent)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_takes_no_report_is_named(demo_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError) as caught:
        bring_up(demo_bundle, file / "r.zip", say=_silent)
    assert str(caught.value) == (
        f"{file / 'r'}: expected a place that a folder can be made in, found Not a directory. "
        "Name another, as in --report bring-up.zip."
    )


def test_a_zip_that_cannot_be_finished_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = tmp_path / "r", tmp_path / "r.zip"
    folder.mkdir()
    write = zipfile.ZipFile.write

    def full(archive: zipfile.ZipFile, *given: Any) -> None:
        write(archive, *given)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))

    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    report = module._Report(Place(tmp_path, folder), time.monotonic() + 600, 10, _silent)
    with pytest.raises(OSError, match="No space left"):
        report.write(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]
    assert (folder / "summary.txt").is_file()


def test_the_command_passes_on_what_it_is_given(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def tried(path: Path, out: Path, **wishes: Any) -> list[Step]:
        asked.append((wishes["minutes"], wishes["sources"]))
        out.with_suffix("").mkdir()
        (out.with_suffix("") / "summary.txt").write_text("a page\n")
        return []

    monkeypatch.setattr(module, "bring_up", tried)
    given = [str(demo_bundle), "--bring-up", "--minutes", "3.5", "--plugin-sources", "src"]
    command.main([*given, "--report", str(tmp_path / "r.zip")], standalone_mode=False)
    assert asked == [(3.5, Path("src"))]


def test_without_a_card_it_says_what_it_can_and_cannot_do(demo_bundle: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "report.zip"
    steps = bring_up(demo_bundle, out, say=said.append)
    if "card" in steps[1].found:
        pytest.skip("there is a card here")
    assert [step.task.stage for step in steps] == ["machine", "card"]
    assert said[2].startswith("no NVIDIA card here, or no driver: only the machine is looked at")
    assert said[-1] == f"{out}: the report; {tmp_path / 'report' / 'summary.txt'} is a page of it"
    with zipfile.ZipFile(out) as archive:
        assert {"report/00-machine.json", "report/summary.txt"} <= set(archive.namelist())
        machine = json.loads(archive.read("report/00-machine.json"))["found"]
    assert {budget["name"] for budget in machine["manifest"]["budgets"]} == {"small", "medium", "large"}
    with pytest.raises(InputError, match=r"report\.zip: expected a new place for the report"):
        bring_up(demo_bundle, out, say=_silent)


def test_every_stage_is_told_where_the_weights_are(demo_bundle: Path, tmp_path: Path) -> None:
    """Of a bundle that holds its weights a folder of them is refused, here and in a stage's process."""
    text = "holds its weights, found one"
    with pytest.raises(InputError, match=text):
        bring_up(demo_bundle, tmp_path / "r.zip", external=tmp_path, say=_silent)
    assert list(tmp_path.iterdir()) == []
    assert text in _run(demo_bundle, tmp_path / "r", external=tmp_path).result["error"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11 ended it"),
        ("import time; time.sleep(60)", "it took more than 1 s and was ended"),
        ("import sys; open(sys.argv[6], 'w').write('{\"found\": ')", "it ended with 0"),  # half a result
    ],
)
def test_a_stage_that_crashes_or_hangs_ends_alone(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, told: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nprint('last words', flush=True)\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(program))
    monkeypatch.setitem(STAGES, "machine", replace(STAGES["machine"], seconds=1 if "sleep" in body else 60))
    folder = tmp_path / "r"
    step = _run(demo_bundle, folder)
    assert step.result["ended"] == told
    assert "last words" in step.result["last_words"]
    assert json.loads((folder / "00-machine.json").read_text("utf-8")) == {"task": "machine", **step.result}


def test_a_crash_after_the_result_is_told_beside_it(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where TensorRT falls over its own feet at the end of the process."""
    program = tmp_path / "python"
    body = "import os, signal, sys\nopen(sys.argv[6], 'w').write('{\"found\": {\"lost\": 0}}')"
    program.write_text(f"#!{sys.executable}\n{body}\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    program.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(program))
    step = _run(demo_bundle, tmp_path / "r", "life")
    assert step.found == {"lost": 0}
    assert step.failed
    assert step.text().endswith(" s, then signal 11 ended it")


def test_a_stage_that_cannot_begin_is_told_so(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError):
        bring_up(demo_bundle, tmp_path / "r.zip", say=_silent)
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        assert "machine: it did not begin: " in archive.read("r/summary.txt").decode()


def test_nothing_of_the_folder_that_it_is_called_from_runs(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called as `cd BUNDLE; elastic-run . --bring-up`, with modules of the download's own beside the manifest."""
    bundle = tmp_path / "bundle"
    shutil.copytree(demo_bundle, bundle)
    for name in ("numpy.py", "json.py"):
        (bundle / name).write_text("open('ran', 'w').close()\n")
    monkeypatch.chdir(bundle)
    step = _run(Path(), tmp_path / "r")
    assert not (bundle / "ran").exists()
    assert not step.failed, step.result


CARD = {"name": "RTX 5080", "compute_capability": "12.0", "total": 16 << 30, "free": 15 << 30}


def _timed(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[float]:
    """Stages that take that long by a clock of their own; gives the limits that they are given."""
    now, limits = [0.0], list[float]()

    def run(command: list[str], log: Path, limit: float) -> str:
        stage, result, _ = command[-3:]
        limits.append(limit)
        now[0] += min(seconds, limit)
        log.write_text("words")
        if seconds > limit:
            return f"it took more than {limit:g} s and was ended"
        found = {"card": CARD} if stage == "card" else {"not_run": "in a test"}
        Path(result).write_text(json.dumps({"found": found}))
        return "it ended with 0"

    monkeypatch.setattr(module, "run_stage", run)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return limits


def test_all_stages_together_take_no_longer_than_the_minutes(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = _timed(monkeypatch, 29)
    steps = bring_up(demo_bundle, tmp_path / "r.zip", minutes=2, say=_silent)
    assert [step.task.stage for step in steps] == ["machine", "card", "device", "engine", "context"]
    assert limits == [60, 30, 60, 33, 4]  # what is left
    assert steps[-1].result["ended"] == "it took more than 4 s and was ended: 2 minutes were over"
    page = (tmp_path / "r" / "summary.txt").read_text("utf-8")
    assert "context-again small/rtx5080.engine whole-graph-capture: not begun, 2 minutes were over" in page
    assert "kernels: not begun, 2 minutes were over" in page


def test_each_result_is_on_disk_before_the_next_stage_begins(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, there = tmp_path / "r", list[int]()
    _timed(monkeypatch, 1)
    result = module._Report._result

    def counted(self: Any, task: Task, label: str, left: float) -> Found:
        there.append(len(list(folder.glob("*.json"))))
        return result(self, task, label, left)

    monkeypatch.setattr(module._Report, "_result", counted)
    steps = bring_up(demo_bundle, tmp_path / "r.zip", say=_silent)
    assert there == list(range(len(steps)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_its_report_and_no_process(
    demo_bundle: Path, tmp_path: Path, program: Program, number: signal.Signals
) -> None:
    """While nvidia-smi hangs, which the first stage asks."""
    program("nvidia-smi", f"echo $$ > {tmp_path}/pid; exec sleep 30")
    out = tmp_path / "r.zip"
    started = [sys.executable, "-m", "elastic_runtime.cli.run", demo_bundle, "--bring-up", "--report", out]
    running = subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for _ in range(600):
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
            break
        time.sleep(0.1)
    running.send_signal(number)
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 130, said
    assert "machine: it was interrupted" in said
    with zipfile.ZipFile(out) as archive:
        assert json.loads(archive.read("r/00-machine.json"))["ended"] == "it was interrupted"
        page = archive.read("r/summary.txt").decode()
    assert page.startswith("interrupted: the stages after the last one named here were not begun")
    hanging = Path("/proc") / (tmp_path / "pid").read_text().strip()
    for _ in range(100):  # a killed process is one until a processor has had time for it
        if _gone(hanging):
            break
        time.sleep(0.1)
    assert _gone(hanging)


def _gone(process: Path) -> bool:
    """Whether a folder of /proc is of no process any more, or of one that only its parent has not asked for yet."""
    try:
        return (process / "stat").read_text().split()[2] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_who_is_impatient_gets_a_whole_zip_too(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> str:
        raise KeyboardInterrupt

    def pressed_again(notes: list[str], steps: list[Step]) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return summary(notes, steps)

    monkeypatch.setattr(module, "run_stage", interrupted)
    monkeypatch.setattr(module, "summary", pressed_again)
    with pytest.raises(KeyboardInterrupt):
        bring_up(demo_bundle, tmp_path / "r.zip", say=_silent)
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        assert {"r/00-machine.json", "r/summary.txt"} == set(archive.namelist())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_no_file_of_the_zip_names_the_machine(demo_bundle: Path, tmp_path: Path, program: Program) -> None:
    secrets = ("1324920012345", "4f1c9a3e-7b2d-4c58-9e10-5d6a7b8c9d0e", "secret-project")
    serial, uuid, name = secrets
    lines = (
        "Product Name : RTX",
        f"Serial Number : {serial}",
        f"GPU UUID : GPU-{uuid}",
        "Processes",
        f"  Name : {name}",
    )
    program("nvidia-smi", "\n".join(f"echo '{line}'" for line in lines))
    bring_up(demo_bundle, tmp_path / "r.zip", say=_silent)
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        everything = "".join(archive.read(file).decode("utf-8", errors="replace") for file in archive.namelist())
    assert "Product Name : RTX" in everything
    assert [secret for secret in secrets if secret in everything] == []


def test_a_stage_that_is_killed_ends_alone_and_the_page_makes_sense(
    demo_bundle: Path, tmp_path: Path, program: Program
) -> None:
    program("nvidia-smi", "kill -9 $PPID")
    said: list[str] = []
    steps = bring_up(demo_bundle, tmp_path / "r.zip", say=said.append)
    assert said[0] == "machine: signal 9 ended it"
    assert steps[1].task.stage == "card"
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        page = archive.read("r/summary.txt").decode()
    assert "machine: signal 9 ended it" in page
    assert "None" not in page


def test_a_driver_that_hangs_costs_its_own_stage(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    body = "import sys, os\nif 'card' in sys.argv: import time; time.sleep(60)\n"
    program.write_text(f"#!{sys.executable}\n{body}os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])\n")
    program.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(program))
    monkeypatch.setitem(STAGES, "card", replace(STAGES["card"], seconds=1))
    said: list[str] = []
    machine, card = bring_up(demo_bundle, tmp_path / "r.zip", say=said.append)
    assert not machine.failed
    assert card.result["ended"] == "it took more than 1 s and was ended"
    assert said[2].startswith("the driver does not answer: only the machine is looked at")
