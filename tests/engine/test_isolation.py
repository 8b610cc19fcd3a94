"""What the build process does to itself, tried in processes of their own."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading

import pytest

from elastic_export.engine import isolation
from elastic_export.engine.buildlog import LogLine
from elastic_export.engine.compile import NOT_REPRODUCIBLE, ProcessFacts, warnings

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="personality and scheduling are Linux's")


def run(code: str) -> list[str]:
    setup = "import os\nfrom elastic_export.engine import isolation\n"
    done = subprocess.run([sys.executable, "-c", setup + code], capture_output=True, text=True, check=True)
    return done.stdout.split()


WHERE = "print(isolation.address_randomization(), id(object))"


def test_what_is_started_inside_has_fixed_addresses() -> None:
    with isolation.fixed_addresses():
        first, second = run(WHERE), run(WHERE)
    if first[0] == "True":
        pytest.skip("this kernel does not let a process switch address randomisation off")
    assert first == second


def test_what_is_started_afterwards_or_beside_has_not() -> None:
    before, beside, inside = run(WHERE), list[list[str]](), threading.Event()

    def start() -> None:
        inside.wait()
        beside.append(run(WHERE))

    other = threading.Thread(target=start)
    other.start()
    with isolation.fixed_addresses():
        inside.set()
        other.join()
    assert beside[0][0] == run(WHERE)[0] == before[0]
    with pytest.raises(RuntimeError, match="within"), isolation.fixed_addresses():
        raise RuntimeError("within")
    assert run(WHERE)[0] == before[0]


def test_where_the_call_is_forbidden_processes_start_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()

    class Forbidden:
        def personality(self, flags: ctypes.c_ulong) -> int:
            calls.append(flags.value)
            return -1

    before = run(WHERE)[0]
    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "CDLL", lambda name: Forbidden())
        with isolation.fixed_addresses():
            inside = run(WHERE)[0]
    assert inside == before
    assert calls == [isolation.QUERY]


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
