"""The machine a run is on: how much memory and disk it may take, and how fast it is."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from elastic_export.plan.rates import measure_rates
from elastic_export.plan.work import Rates

_NO_LIMIT = 1 << 60  # version 1 of control groups says "none" with the largest number of pages
_ROOT = Path("/")


@dataclass(frozen=True)
class Space:
    """Room for bytes: how much is free, and whose it is (`the memory limit of /docker/ab12`)."""

    free: int
    where: str


@dataclass(frozen=True)
class Machine:
    """What a plan asks of the machine.

    Attributes:
        memory: that processes may still take; None where the system does not say.
        disk: below the output; None where its file system does not say.
        processors: that this process may use.
        rates: how fast it is.
    """

    memory: Space | None
    disk: Space | None
    processors: int
    rates: Rates


def this_machine(output: Path, shard: Path | None) -> Machine:
    """The machine we are on, for a bundle at `output` of a checkpoint that has the file `shard`."""
    return Machine(free_memory(), free_disk(output), processors(), measure_rates(shard))


def processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_disk(output: Path) -> Space | None:
    """Room on the file system where a folder is or will be; None where it has no size, as /proc."""
    place = existing_folder(output)
    usage = shutil.disk_usage(place)
    return Space(usage.free, f"the file system of {place}") if usage.total else None


def existing_folder(path: Path) -> Path:
    """A folder, or the nearest of those around it that is there: on its file system it will be."""
    resolved = Path(os.path.realpath(path))
    return next(folder for folder in (resolved, *resolved.parents) if folder.is_dir())


def free_memory(root: Path = _ROOT) -> Space | None:
    """Memory that may still be taken: the least of what the machine, our control groups and `ulimit -v` leave.

    A container's limit counts the files that its processes have read; those pages are given back when they are wanted,
    so they count as free here, as they do in the machine's own figure.

    Args:
        root: where /proc and /sys are.
    """
    found = [*_of_the_machine(root), *_of_the_groups(root), *_of_the_process(root)]
    return min(found, key=lambda space: space.free, default=None)


def _of_the_machine(root: Path) -> Iterator[Space]:
    lines = _numbers(root / "proc/meminfo")
    if "MemAvailable" in lines:
        yield Space(1024 * (lines["MemAvailable"] + lines.get("SwapFree", 0)), "this machine")


def _of_the_process(root: Path) -> Iterator[Space]:
    """A limit of the addresses of each process, as batch systems set it; files that are mapped count too."""
    limit, taken = resource.getrlimit(resource.RLIMIT_AS)[0], _numbers(root / "proc/self/status").get("VmSize")
    if limit != resource.RLIM_INFINITY and taken is not None:
        yield Space(max(0, limit - 1024 * taken), f"the limit of a process's addresses (ulimit -v {limit >> 10})")


def _of_the_groups(root: Path) -> Iterator[Space]:
    """Every group that we are in, ours and those around it, of either version (Linux, cgroups(7))."""
    system = root / "sys/fs/cgroup"
    second = next((base for base in (system, system / "unified") if (base / "cgroup.controllers").is_file()), None)
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            yield from _limits(system / "memory", name, files)
        elif not controllers and second is not None:
            yield from _limits(second, name, ("memory.max", "memory.current", ""))


def _limits(base: Path, name: str, files: tuple[str, str, str]) -> Iterator[Space]:
    """A group and those around it. In a container the name may be one of the world outside: then the mount is ours."""
    most, used, prefix = files
    own = base / name.lstrip("/")
    for folder in (own, *(parent for parent in own.parents if parent.is_relative_to(base))):
        limit, taken = _text(folder / most).strip(), _text(folder / used).strip()
        if limit.isdigit() and taken.isdigit() and int(limit) < _NO_LIMIT:
            stat = _numbers(folder / "memory.stat")
            files_read = stat.get(f"{prefix}active_file", 0) + stat.get(f"{prefix}inactive_file", 0)
            free = int(limit) - max(0, int(taken) - files_read)
            yield Space(max(0, free), f"the memory limit of its control group ({int(limit) / 2**30:.1f} GiB)")


def _numbers(file: Path) -> dict[str, int]:
    """`Name: 12 kB` or `name 12`, by the name."""
    words = (line.split() for line in _text(file).splitlines())
    return {word[0].rstrip(":"): int(word[1]) for word in words if len(word) > 1 and word[1].isdigit()}


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""  # another system, or a group that is not shown to us
