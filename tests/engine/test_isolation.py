"""What the build process does to itself, tried in processes of their own."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from elastic_export.engine import isolation
from elastic_export.engine.buildlog import LogLine
from elastic_export.engine.compile import NOT_REPRODUCIBLE, ProcessFacts, warnings

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="personality and scheduling are Linux's")


def run(code: str) -> list[str]:
    setup = "import os\nfrom elastic_export.engine import isolation\n"
    done = subprocess.run([sys.executable, "-c", setup + code], capture_output=True, text=True, check=True)
    return done.stdout.split()


WHERE = "print(isolation.address_randomization(), id(object), sep=':')"
#: In a process whose own setting may be changed: `where()`, what a process that it starts says.
START = f"""
import subprocess, sys
def where():
    code = "from elastic_export.engine import isolation; {WHERE}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
"""


def test_what_is_started_inside_has_fixed_addresses(addresses_can_be_fixed: bool) -> None:
    if not addresses_can_be_fixed:
        pytest.skip("this kernel does not let a process switch address randomisation off")
    first, second = run(f"{START}with isolation.fixed_addresses(): print(where(), where())")
    assert first.startswith("False")
    assert first == second


def test_what_is_started_afterwards_or_beside_has_not() -> None:
    code = """
import threading
inside = threading.Event()
def beside():
    inside.wait()
    print(where())
print(where())
other = threading.Thread(target=beside)
other.start()
try:
    with isolation.fixed_addresses():
        inside.set()
        other.join()
        raise RuntimeError
except RuntimeError:
    print(where())
"""
    assert [line.split(":")[0] for line in run(START + code)] == [run(WHERE)[0].split(":")[0]] * 3


@pytest.mark.parametrize(("told", "calls"), [(-1, [isolation.QUERY]), (0, [isolation.QUERY, 0x0040000, 0])])
def test_where_the_call_is_forbidden_processes_start_all_the_same(
    monkeypatch: pytest.MonkeyPatch, told: int, calls: list[int]
) -> None:
    """The question is, or the setting only."""
    made = list[int]()

    class Forbidden:
        def personality(self, flags: ctypes.c_ulong) -> int:
            made.append(flags.value)
            return told if flags.value == isolation.QUERY else -1

    randomized = "print(isolation.address_randomization())"
    before = run(randomized)
    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "CDLL", lambda name: Forbidden())
        with isolation.fixed_addresses():
            inside = run(randomized)
    assert inside == before
    assert made == calls


def test_a_refused_privilege_is_told() -> None:
    refuse = "def refuse(*a): raise PermissionError\nos.sched_setscheduler = refuse\n"
    one_cpu = "print(isolation.schedule_in_order(), len(os.sched_getaffinity(0)))"
    assert run(refuse + one_cpu) == ["False", "1"]


def test_one_cpu_is_never_taken_from_the_others() -> None:
    alone = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code = "print(isolation.schedule_in_order(), os.sched_getscheduler(0) == os.SCHED_FIFO)"
    assert run(alone + code) == ["False", "False"]


def test_peak_memory_is_this_process_alone() -> None:
    small, large = run("print(isolation.peak_rss())"), run("x = b'x' * (1 << 27)\nprint(isolation.peak_rss())")
    assert int(large[0]) - int(small[0]) >= 1 << 26


def test_the_warning_comes_exactly_where_bytes_are_not_promised() -> None:
    log = [LogLine("WARNING", "Unused Input: length"), LogLine("WARNING", "odd"), LogLine("WARNING", "odd")]
    assert warnings(log, ProcessFacts(1, reproducible=True)) == ("odd",)
    assert warnings(log, ProcessFacts(1, reproducible=False)) == ("odd", NOT_REPRODUCIBLE)
