"""Making the build process one whose engine bytes do not depend on chance. Linux only; elsewhere it says so."""

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

    TensorRT orders some of its names by pointer, so the bytes of an engine follow the layout of memory. The setting
    takes effect at exec, hence the second start. Container runtimes may forbid the call: then this returns, and
    `address_randomization` tells.
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
