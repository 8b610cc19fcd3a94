"""The commands as processes: an output that is closed, full or read no longer, and Ctrl-C before they have begun."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def test_closed_pipe_ends_quietly() -> None:
    command = [sys.executable, "-m", "elastic_export", "targets"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert b"Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("targets",), ("--help",)])
def test_a_full_disk_behind_the_output(arguments: tuple[str, ...], unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "elastic_export", *arguments]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, text=True, check=False)
    told = "error: standard output: expected room to write, found No space left on device. Free some space there.\n"
    assert (done.returncode, done.stderr) == (1, told)


@pytest.mark.parametrize("arguments", [("targets",), ("--version",)])
def test_a_closed_output_is_said(arguments: tuple[str, ...]) -> None:
    """What is opened next would be it, for the programs that an export starts too."""
    shell = ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-m", "elastic_export", *arguments]
    done = subprocess.run(shell, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    told = "error: standard output: expected an open one, found a closed one. Use > /dev/null.\n"
    assert (done.returncode, done.stderr) == (1, told)


@pytest.mark.parametrize("raised", ["", "ImportError('initialization failed') from error", "SystemError() from None"])
@pytest.mark.parametrize("package", ["elastic_export.cli", "elastic_runtime.cli"])
def test_ctrl_c_while_modules_are_imported_ends_quietly(package: str, raised: str) -> None:
    """A busy machine takes seconds for them, and C code makes errors of its own of the exception."""
    code = (
        "import signal, sys\nclass Interrupt:\n    def find_spec(self, name, *rest):\n"
        "        if name == 'numpy':\n"
        "            try:\n                signal.raise_signal(signal.SIGINT)\n"
        f"            except KeyboardInterrupt as error:\n                raise {raised}\n"
        f"sys.meta_path.insert(0, Interrupt())\nfrom {package} import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (130, "", False), done.stderr


@pytest.mark.parametrize("when", ["exit functions run", "modules go"])
@pytest.mark.parametrize("package", ["elastic_export.cli", "elastic_runtime.cli"])
def test_ctrl_c_while_the_interpreter_ends_changes_nothing(package: str, when: str) -> None:
    """With torch in it that takes a second, and what the command came to is decided."""
    last = "atexit.register(signal.raise_signal, signal.SIGINT)"
    if when == "modules go":  # after the handlers of signals
        last = "class Last:\n    def __del__(self, kill=os.kill, pid=os.getpid()):\n        kill(pid, 2)\nlast = Last()"
    code = f"import atexit, os, signal\nfrom {package} import main\n{last}\nmain()\n"
    for arguments, ended in (["--version"], 0), (["--no-such"], 2):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, "Exception ignored" in done.stderr) == (ended, False), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_removes_what_was_begun(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import pathlib, sys, tempfile, time\nfrom elastic_export.cli import main\n"
        "from elastic_export.bundle.writer import BundleWriter\n"
        "def work(**options):\n"
        "    with BundleWriter(pathlib.Path('out')), tempfile.TemporaryDirectory(dir='.'):\n"
        "        print('begun', flush=True)\n        time.sleep(60)\n"
        "sys.modules['elastic_export.cli.main'].cli.main = work\nmain()\n"
    )
    pipe, path = subprocess.PIPE, os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        assert len(list(tmp_path.iterdir())) == 2
        child.send_signal(number)
        _, said = child.communicate()
    assert (child.returncode, said.startswith("interrupted;")) == (130, True), said
    assert list(tmp_path.iterdir()) == []


def test_a_command_in_a_thread_leaves_signals_alone() -> None:
    """Of a program that calls it: no thread but the main one may say what a signal does."""
    code = (
        "import threading\nfrom elastic_export.cli import main as export\nfrom elastic_runtime.cli import main as run\n"
        "def call(main):\n    try:\n        main()\n    except BaseException as error:\n        print(repr(error))\n"
        "for main in (export, run):\n"
        "    thread = threading.Thread(target=call, args=[main])\n    thread.start()\n    thread.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True)
    said = re.sub("version .*", "version", done.stdout).splitlines()
    assert said == ["elastic-export, version", "SystemExit(0)", "elastic-run, version"], done.stderr
