"""The process of a build: what it finds, and that it ends with whoever wanted the engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elastic_export.engine.process import BuildStoppedError, build_engine, child_environment
from elastic_export.engine.request import EngineRequest
from elastic_runtime.errors import BuildError


def test_the_environment_holds_no_chance() -> None:
    environment = child_environment({"PATH": "/bin", "FOO": "1", "LD_LIBRARY_PATH": "/x", "PYTHONHASHSEED": "7"})
    assert "FOO" not in environment
    assert environment["PYTHONHASHSEED"] == "0"
    assert environment["LD_LIBRARY_PATH"].split(os.pathsep) == ["lib", "/x"]
    assert environment["OMP_NUM_THREADS"] == "1"


#: Runs in place of the build process and tells, once the engine is built, what it was.
TELLING = """
import os, sys
from elastic_export.engine import child, isolation
child.main()
print("compiled in", sys.pycache_prefix, os.path.exists(str(sys.pycache_prefix)), end="; ")
heavy = "numpy", "onnx", "torch", "importlib.metadata", "elastic_runtime.bundle"
print("randomized", isolation.address_randomization(), "imported", *[name for name in heavy if name in sys.modules])
sys.exit(3)
"""


def test_the_process_of_a_native_build(
    request_for_small_model: EngineRequest, monkeypatch: pytest.MonkeyPatch, addresses_can_be_fixed: bool
) -> None:
    """It finds no compiled modules, for a native engine's bytes follow what Python allocates before; so it imports
    little. Its addresses are fixed wherever a process may have that.
    """
    modules, popen = list[str](), subprocess.Popen

    def tell(command: list[str], **options: Any) -> Any:
        *options_of_python, word, module = command
        modules.append(f"{word} {module}")
        return popen([*options_of_python, "-c", TELLING], **options)

    monkeypatch.setattr(subprocess, "Popen", tell)
    told = f"compiled in none False; randomized {not addresses_can_be_fixed} imported"
    with pytest.raises(BuildError, match=rf"left with status 3, last words: .*{told}\. Try "):
        build_engine(replace(request_for_small_model, max_batch=1))
    assert modules == ["-m elastic_export.engine.child"]


HANGING_PARENT = """
import sys
from pathlib import Path
from dataclasses import replace
from elastic_export.engine.process import build_engine
from elastic_export.engine.request import EngineRequest
build_engine(EngineRequest.from_json(Path(sys.argv[1]).read_text()))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_build_process_dies_with_us(
    request_for_small_model: EngineRequest, tmp_path: Path, number: signal.Signals
) -> None:
    here = str(Path(__file__).parent)
    request = replace(
        request_for_small_model, ops="plugin", plugin_ops={"X": 1}, plugin_creators={"X": "toy_creators:hang"}
    )
    (tmp_path / "r.json").write_text(request.to_json())
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)]),
        "TMPDIR": str(temporary),
    }
    command = [sys.executable, "-c", HANGING_PARENT, str(tmp_path / "r.json")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as parent:
        children = _wait_for(lambda: _processes_in(temporary), wanted=True)
        parent.send_signal(number)
        parent.wait(30)
    assert children
    assert not _wait_for(lambda: _processes_in(temporary), wanted=False)
    if number == signal.SIGINT:
        assert list(temporary.iterdir()) == []
        assert list(request.output.parent.iterdir()) == []


def test_a_build_that_is_no_longer_wanted_is_killed(
    request_for_small_model: EngineRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread: Ctrl-C reaches the main one alone."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    hang = {"ops": "plugin", "plugin_ops": {"X": 1}, "plugin_creators": {"X": "toy_creators:hang"}}
    stopped, before = threading.Event(), set(_children())
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(build_engine, replace(request_for_small_model, **hang), stopped=stopped)
        begun = _wait_for(lambda: sorted(set(_children()) - before), wanted=True)
        stopped.set()
        with pytest.raises(BuildStoppedError):
            future.result(30)
    assert begun
    assert set(_children()) <= before
    assert list(request_for_small_model.output.parent.iterdir()) == []


def _children() -> list[int]:
    """Of all threads of this process."""
    lists = (task.joinpath("children").read_text() for task in Path("/proc/self/task").iterdir())
    return [int(pid) for text in lists for pid in text.split()]


def test_an_interrupted_build_leaves_no_process(
    request_for_small_model: EngineRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    started: list[int] = []
    popen = subprocess.Popen

    def remember(*args: Any, **options: Any) -> Any:
        child = popen(*args, **options)
        started.append(child.pid)
        signal.setitimer(signal.ITIMER_REAL, 0.1)  # an engine takes several times that
        return child

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        monkeypatch.setattr(subprocess, "Popen", remember)
        with pytest.raises(KeyboardInterrupt):
            build_engine(request_for_small_model)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(started) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
    assert list(request_for_small_model.output.parent.iterdir()) == []


def _processes_in(folder: Path) -> list[int]:
    """Processes that work in a folder under `folder` and have begun to hang there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            place = Path(os.readlink(entry))
            if str(place).startswith(f"{folder}/") and "still thinking" in (place / "log").read_text():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def _wait_for(look: object, *, wanted: bool, seconds: float = 30.0) -> list[int]:
    end = time.monotonic() + seconds
    while bool(found := look()) != wanted and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.05)
    return list(found)
