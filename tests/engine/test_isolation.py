"""What the build process does to itself, tried in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from elastic_export.engine.buildlog import LogLine
from elastic_export.engine.compile import NOT_REPRODUCIBLE, ProcessFacts, warnings

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="personality and scheduling are Linux's")


def run(code: str) -> list[str]:
    setup = "import os\nfrom elastic_export.engine import isolation\n"
    done = subprocess.run([sys.executable, "-c", setup + code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_second_start_has_fixed_addresses() -> None:
    where = "isolation.restart_without_randomization()\nprint(isolation.address_randomization(), id(object))"
    first, second = run(where), run(where)
    if first[0] == "True":
        pytest.skip("this kernel does not let a process switch address randomisation off")
    assert first == second


def test_a_kernel_that_forgets_does_not_make_us_start_for_ever() -> None:
    code = "os.environ[isolation.RESTARTED] = '1'\nisolation.restart_without_randomization()\nprint('once')"
    assert run(code) == ["once"]


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
