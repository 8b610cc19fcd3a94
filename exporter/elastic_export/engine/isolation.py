"""Making the build process one whose engine bytes do not depend on chance. Linux only; elsewhere it says so.

TensorRT-RTX 1.7.1 keeps some of its sets ordered by pointer, and its helper threads allocate too, so the bytes of an
engine follow the layout of memory: where it is (hence no address randomisation) and who allocates first (hence one
CPU, threads that run until they wait, and a first thread that sleeps before the build begins, see child.py). So all
builds agree, on a loaded machine too; there now and then one differs without the last, and most do, with a dynamic
batch, without the last two.

Left is what Python allocated before. A native engine's bytes follow whether modules are found compiled, so for it they
never are (see process.py), and the length of the path that packages are installed at, so they are the same for one
installation. A plugin engine's bytes follow neither.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

#: <sys/personality.h>
ADDR_NO_RANDOMIZE = 0x0040000
QUERY = 0xFFFFFFFF
#: <sys/prctl.h>
PR_SET_PDEATHSIG = 1
#: Of the socket that stands for a processor: in Linux's abstract namespace, so no file, no folder and no permission is
#: needed, nothing is left behind, and the kernel gives it back however its process ends.
CLAIM = "\0elastic-export processor {}"
RANDOMIZED = "address randomisation cannot be switched off here"
NO_SECOND_PROCESSOR = (
    "threads cannot be ordered here: that takes Linux and a second processor, for nobody else would run"
)
NO_PRIVILEGE = "threads cannot be ordered here: that takes root or CAP_SYS_NICE"


@contextmanager
def fixed_addresses() -> Iterator[None]:
    """Processes that this thread starts meanwhile have no address randomisation.

    On Linux personality(2) belongs to a thread, is inherited by what it starts, and randomisation is decided at exec:
    this process itself stays as it is. Container runtimes may forbid the call: then nothing changes, and
    `address_randomization` tells in the process that was started.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    libc = ctypes.CDLL(None)
    before = libc.personality(ctypes.c_ulong(QUERY))
    try:
        if before >= 0:
            libc.personality(ctypes.c_ulong(before | ADDR_NO_RANDOMIZE))
        yield
    finally:
        if before >= 0:
            libc.personality(ctypes.c_ulong(before))


def address_randomization() -> bool:
    """Whether this process was started with randomised addresses, as far as the kernel tells."""
    if not sys.platform.startswith("linux"):
        return True
    flags = ctypes.CDLL(None).personality(ctypes.c_ulong(QUERY))
    return flags < 0 or not flags & ADDR_NO_RANDOMIZE


@contextmanager
def claimed_processor() -> Iterator[int | None]:
    """A processor for one build, which no other build has meanwhile; None where there is one only.

    Two builds on one processor, first come, first served, would be one after the other. Where all processors are taken,
    or nothing can be claimed (a sandbox without sockets, containers that do not see each other), that is what happens:
    slower, and the bytes are the same. Claimed by the parent, not by the build process, in which a second try would
    allocate more than a first one and so move what comes after.
    """
    cpus = sorted(os.sched_getaffinity(0)) if sys.platform.startswith("linux") else []
    if len(cpus) < 2:
        yield None
        return
    first = os.getpid() % len(cpus)
    for cpu in (*cpus[first:], *cpus[:first]):
        if (claim := _claim(cpu)) is not None:
            with claim:
                yield cpu
            return
    yield cpus[first]


def _claim(cpu: int) -> socket.socket | None:
    import socket  # noqa: PLC0415  # the build process imports this module too, and claims nothing

    try:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError:
        return None
    try:
        claim.bind(CLAIM.format(cpu))
    except OSError:
        claim.close()
        return None
    return claim


def schedule_in_order(processor: int | None) -> str:
    """Put this process on that processor, its threads first come, first served; return why it is not, if it is not.

    First come, first served needs a privilege (root and many CI containers have it).
    """
    if processor is None:
        return NO_SECOND_PROCESSOR
    try:
        os.sched_setaffinity(0, {processor})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return NO_PRIVILEGE
    return ""


def left_to_chance(processor: int | None) -> tuple[str, ...]:
    """Fix what this process can fix of itself; return why its engine may have other bytes all the same, if it may."""
    reasons = (schedule_in_order(processor), RANDOMIZED if address_randomization() else "")
    return tuple(reason for reason in reasons if reason)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, even of kill -9: nobody else would."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def peak_rss() -> int:
    """Highest resident memory of this process since exec, in bytes; 0 where the system does not tell.

    Not getrusage: its maximum is inherited through fork, so it would be the parent's where that was larger.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
