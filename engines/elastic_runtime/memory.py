"""How much memory there is: of the machine, and of the card through NVML, the driver's own library.

NVML is loaded by name; no package is needed, and where there is no driver the message says so.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from elastic_runtime.errors import InputError

_LIBRARIES = ("nvml.dll",) if sys.platform == "win32" else ("libnvidia-ml.so.1", "libnvidia-ml.so")


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@dataclass(frozen=True)
class Card:
    """A GPU as the driver describes it; bytes."""

    name: str
    compute_capability: str
    total: int
    free: int


def card(index: int = 0) -> Card:
    """The card of that number, with the memory that is free now.

    Raises:
        InputError: no NVIDIA driver, no such card, a driver that does not answer.
    """
    library = _load()
    _check(library.nvmlInit_v2(), "start")
    try:
        return _describe(library, index)
    finally:
        library.nvmlShutdown()


def find_card(index: int = 0) -> Card | None:
    """As `card`, None where there is none."""
    try:
        return card(index)
    except InputError:
        return None


def _describe(library: ctypes.CDLL, index: int) -> Card:
    handle, memory = ctypes.c_void_p(), _Memory()
    major, minor, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(96)
    _check(library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)), f"find card {index}")
    _check(library.nvmlDeviceGetName(handle, name, 96), "name the card")
    _check(library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)), "say how much memory is free")
    asked = library.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
    _check(asked, "say the compute capability")
    return Card(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.total, memory.free)


def _load() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise InputError(
        "GPU memory",
        expected="an NVIDIA driver that says how much is free",
        found=f"no {_LIBRARIES[0]}",
        todo="name it, as in --vram 12GiB",
    )


def _check(code: int, what: str) -> None:
    if code:
        raise InputError(
            "GPU memory",
            expected=f"the NVIDIA driver to {what}",
            found=f"NVML error {code}",
            todo="name it with --vram",
        )


def free_ram() -> int:
    """Bytes of main memory that a process can still take: the kernel's estimate, within the limit of its group."""
    free = _available(Path("/proc/meminfo"))
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        return min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no group, or the limit "max"
        return free


def _available(meminfo: Path) -> int:
    try:
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else sys.maxsize
