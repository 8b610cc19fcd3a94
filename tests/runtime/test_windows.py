"""The runtime without what Windows lacks: modules, functions and constants of POSIX, and Linux's /proc.

Not Windows itself: paths, the loader of libraries and the console are this system's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: What the packages beneath it need of the system is loaded first: it is theirs to bring for Windows.
PROGRAM = """
import importlib, mmap, os, pathlib, signal, sys
from types import SimpleNamespace
import click, jinja2, ml_dtypes, numpy, onnx, onnxruntime, tokenizers

class Refuse:
    MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.MODULES:
            raise ModuleNotFoundError(f"no module {name} on Windows", name=name)

for name in Refuse.MODULES:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Refuse())
for name in ("fork", "getuid", "geteuid", "killpg", "mkfifo", "posix_fadvise", "posix_fallocate", "pread", "preadv",
             "pwrite", "sched_getaffinity", "sched_setaffinity", "sendfile", "statvfs", "sysconf", "uname", "waitpid"):
    delattr(os, name)
for name in ("SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "alarm", "pthread_sigmask", "setitimer"):
    delattr(signal, name)
for name in [name for name in dir(mmap) if name.startswith(("MADV_", "MAP_", "PROT_"))]:
    delattr(mmap, name)

class Map(mmap.mmap):
    @property
    def madvise(self):
        raise AttributeError("madvise")

mmap.mmap = Map
opened = pathlib.Path.open

def no_proc(path, *arguments, **named):
    if str(path).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return opened(path, *arguments, **named)

pathlib.Path.open = no_proc
sys.platform = "win32"
process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=3 << 30))
memory = SimpleNamespace(available=4 << 30)
sys.modules["psutil"] = SimpleNamespace(virtual_memory=lambda: memory, Process=lambda: process)
"""

IMPORT_ALL = """
import pkgutil
import elastic_runtime
names = [m.name for m in pkgutil.walk_packages(elastic_runtime.__path__, "elastic_runtime.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""

RUN = """
from elastic_runtime.cli.run import main
main()
"""


def _python(program: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", PROGRAM + program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": "cp1252"})


def test_every_module_is_imported_without_posix() -> None:
    done = _python(IMPORT_ALL)
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) > 60


@pytest.mark.parametrize("how", [["--prompt", "Grüße, 你好", "--json", "--stats"], ["--ids", "1,2,3"], ["--verify"]])
def test_the_demo_runs_on_the_cpu_without_posix(demo_bundle: Path, how: list[str]) -> None:
    options = [] if how == ["--verify"] else ["--budget", "small", "--context", 64, "--max-new", 8]
    done = _python(RUN, demo_bundle, *how, *options)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout
    if "--stats" in how:
        assert b"3.0 GiB resident" in done.stderr


def test_without_a_card_the_missing_driver_is_windows_own(demo_bundle: Path) -> None:
    done = _python(RUN, demo_bundle, "--prompt", "x", "--backend", "tensorrt-rtx")
    assert done.returncode == 1
    assert b"found no nvml.dll" in done.stderr
