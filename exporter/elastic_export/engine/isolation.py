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
from pathlib import Path

#: <sys/personality.h>
ADDR_NO_RANDOMIZE = 0x0040000
QUERY = 0xFFFFFFFF
#: <sys/prctl.h>
PR_SET_PDEATHSIG = 1
#: Set in the environment of the second start, so that a kernel which forgets cannot make us start for ever.
RESTARTED = "ELASTIC_ENGINE_RESTARTED"


def restart_without_randomization() -> None:
    """Replace this process by itself with address randomisation off; return where that is done or cannot be.

    The setting takes effect at exec, hence the second start. Container runtimes may forbid the call: then this
    returns, and `address_randomization` tells.
    """
    if RESTARTED in os.environ or not sys.platform.startswith("linux") or not address_randomization():
        return
    libc = ctypes.CDLL(None)
    current = libc.personality(ctypes.c_ulong(QUERY))
    if current < 0 or libc.personality(ctypes.c_ulong(current | ADDR_NO_RANDOMIZE)) < 0:
        return
    os.environ[RESTARTED] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


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
