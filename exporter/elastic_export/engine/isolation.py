"""Making the build process one whose engine bytes do not depend on chance. Linux only; elsewhere it says so.

TensorRT-RTX 1.7.1 keeps some of its sets ordered by pointer, and its helper threads allocate too, so the bytes of an
engine follow the layout of memory: where it is (hence no address randomisation) and who allocates first (hence one
CPU, threads that run until they wait, and a first thread that sleeps before the build begins, see child.py). So all
builds agree, on a loaded machine too; there now and then one differs without the last, and most do, with a dynamic
batch, without the last two.

Left is what Python allocated before. A native engine's bytes follow whether modules are found compiled, so for it they
never are (see builder.py), and the length of the path that packages are installed at, so they are the same for one
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

#: <sys/personality.h>
ADDR_NO_RANDOMIZE = 0x0040000
QUERY = 0xFFFFFFFF
#: <sys/prctl.h>
PR_SET_PDEATHSIG = 1


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


def schedule_in_order() -> bool:
    """Put this process on one CPU, its threads first come, first served; return whether both were granted.

    First come, first served needs a privilege (root and many CI containers have it). It is not asked for where there
    is one CPU only, for nobody else would get to run.
    """
    if not sys.platform.startswith("linux"):
        return False
    cpus = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, {cpus[os.getpid() % len(cpus)]})
        if len(cpus) > 1:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return False
    return len(cpus) > 1


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
