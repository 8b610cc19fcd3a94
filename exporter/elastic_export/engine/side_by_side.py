"""How many engines are built side by side, where nobody says.

A build process keeps one processor busy and none more (isolation.py), so processors are the one bound; memory is the
other: a build that the kernel kills for want of it costs more than one that waited.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Bytes of memory for one build whose weights are inputs: a native engine of a 12B takes about 1 GiB.
BUILD_MEMORY = 3 << 29
_CGROUP = Path("/sys/fs/cgroup")


def builds_at_once(*, weights_inside: bool) -> int:
    """As many as this machine has processors and free memory for; one where the weights are inside the engines, which
    take three times the weights.
    """
    if weights_inside:
        return 1
    free = free_memory()
    fitting = _processors() if free is None else free // BUILD_MEMORY
    return max(1, min(_processors(), fitting))


def free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int | None:
    """Bytes that programs may still take: of the machine or, if that is less, of the container; None where nobody
    tells.
    """
    figures = [figure for figure in (_available(meminfo), _left(cgroup)) if figure is not None]
    return min(figures) if figures else None


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _available(meminfo: Path) -> int | None:
    """MemAvailable: free, and what the kernel gives up for it."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _left(cgroup: Path) -> int | None:
    """Of a container's limit (cgroup v2), what its programs have not taken; its file cache can be given up."""
    try:
        limit = int((cgroup / "memory.max").read_text())  # `max` where there is none
        taken = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return max(0, limit - int(taken["anon"]))
    except (OSError, ValueError, KeyError):
        return None
