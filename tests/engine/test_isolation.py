"""What the build process does to itself, tried in processes of their own."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from elastic_export.engine import isolation

ALLOWED = sorted(os.sched_getaffinity(0)) if sys.platform.startswith("linux") else [0]
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
    one_cpu = f"print(isolation.schedule_in_order({ALLOWED[0]}) == isolation.NO_PRIVILEGE, os.sched_getaffinity(0))"
    assert run(refuse + one_cpu) == ["True", f"{{{ALLOWED[0]}}}"]


def test_one_cpu_is_never_taken_from_the_others() -> None:
    alone = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code = """
with isolation.claimed_processor() as cpu:
    print(cpu, isolation.left_to_chance(cpu)[0] == isolation.NO_SECOND_PROCESSOR)
print(os.sched_getscheduler(0) == os.SCHED_FIFO)"""
    assert run(alone + code) == ["None", "True", "False"]


#: Holds a processor until its input ends.
HOLD = """
isolation.CLAIM = "\\0" + sys.argv[1]
with isolation.claimed_processor() as cpu:
    print(cpu, flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has claimed a processor, and which."""
    command = [
        sys.executable,
        "-c",
        "import sys\nfrom elastic_export.engine import isolation" + HOLD,
        isolation.CLAIM[1:],
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture
def own_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims that no build beside this test takes part in."""
    monkeypatch.setattr(isolation, "CLAIM", f"{isolation.CLAIM} {os.getpid()}")


@pytest.mark.skipif(len(ALLOWED) < 2, reason="takes two processors")
def test_builds_side_by_side_take_a_processor_each(own_claims: None) -> None:
    with ExitStack() as claims:
        taken = [claims.enter_context(isolation.claimed_processor()) for _ in ALLOWED]
        assert sorted(taken) == ALLOWED  # type: ignore[type-var]
        with isolation.claimed_processor() as shared:  # there is none left, and nobody waits
            assert shared in ALLOWED
    with isolation.claimed_processor() as first, isolation.claimed_processor() as second:
        assert first != second


@pytest.mark.skipif(len(ALLOWED) < 2, reason="takes two processors")
def test_a_claim_is_seen_by_other_processes_and_ends_with_its_own(own_claims: None) -> None:
    with holding() as (process, cpu):
        assert isolation._claim(cpu) is None
        process.kill()
        process.wait()
        claim = isolation._claim(cpu)
        assert claim is not None
        claim.close()


@pytest.mark.skipif(len(ALLOWED) < 2, reason="takes two processors")
def test_where_nothing_can_be_claimed_builds_are_ordered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", forbidden)
    with isolation.claimed_processor() as cpu, isolation.claimed_processor() as other:
        assert cpu == other == ALLOWED[os.getpid() % len(ALLOWED)]


def test_peak_memory_is_this_process_alone() -> None:
    small, large = run("print(isolation.peak_rss())"), run("x = b'x' * (1 << 27)\nprint(isolation.peak_rss())")
    assert int(large[0]) - int(small[0]) >= 1 << 26
