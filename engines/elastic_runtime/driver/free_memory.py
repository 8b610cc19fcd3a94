"""How much memory there is: of the machine, and of the card through NVML, the driver's own library.

NVML is loaded by name; no package is needed, and where there is no driver the message says so.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from elastic_runtime.driver.cuda import pci_bus_id
from elastic_runtime.errors import BuildError, InputError

#: NVML's errors of a machine whose card cannot be used; the rest are told by their number.
_MISMATCH = 18
_WORDS = {
    9: "no driver that is loaded",
    15: "a card that has fallen off the bus",
    _MISMATCH: "a driver and a library of different versions",
}
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

    @property
    def used(self) -> int:
        """Bytes that all programs have taken."""
        return self.total - self.free


def card(index: int = 0) -> Card:
    """The card of that number in CUDA's order, with the memory that is free now.

    NVML counts by PCI bus and shows every card; CUDA counts the fastest first and only those of CUDA_VISIBLE_DEVICES.
    They are matched by the bus id; without CUDA's driver the number is NVML's.

    Raises:
        InputError: no NVIDIA driver, no such card, a driver that does not answer.
    """
    library = _load()
    _check(library.nvmlInit_v2(), "start")
    try:
        return _describe(library, index, _bus_id(index))
    finally:
        library.nvmlShutdown()


def find_card(index: int = 0) -> Card | None:
    """As `card`, None where there is none."""
    try:
        return card(index)
    except InputError:
        return None


def why_no_card(index: int = 0) -> InputError | None:
    """Why `find_card` finds none on a machine that has NVIDIA's driver; None where it has not, or where there is one.

    A driver that was updated without a restart looks like a machine without a card otherwise.
    """
    try:
        _load()
    except InputError:
        return None
    try:
        card(index)
    except InputError as error:
        return error
    return None


def _bus_id(index: int) -> str | None:
    """Where CUDA's card of that number sits; None without CUDA's driver. Raises InputError where CUDA shows none."""
    try:
        return pci_bus_id(index)
    except BuildError as error:
        todo = "look at CUDA_VISIBLE_DEVICES, or name the memory with --vram"
        raise InputError("GPU memory", expected=f"a card {index} of CUDA", found=error.found, todo=todo) from error


def _describe(library: ctypes.CDLL, index: int, bus_id: str | None) -> Card:
    handle, memory = ctypes.c_void_p(), _Memory()
    major, minor, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(96)
    if bus_id is None:
        _check(library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)), f"find card {index}")
    else:
        _check(library.nvmlDeviceGetHandleByPciBusId_v2(bus_id.encode(), ctypes.byref(handle)), f"find card {bus_id}")
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
        number = f"NVML error {code}"
        raise InputError(
            "GPU memory",
            expected=f"the NVIDIA driver to {what}",
            found=f"{_WORDS[code]} ({number})" if code in _WORDS else number,
            todo="restart the machine, which loads the driver that was installed"
            if code == _MISMATCH
            else "name it with --vram",
        )


def free_ram(root: Path = Path("/")) -> int:
    """Bytes of main memory that a process can still take: the kernel's estimate, within the limits of its groups.

    Args:
        root: where `proc` and `sys` are.
    """
    return max(0, min([_available(root / "proc/meminfo"), *_group_rooms(root)]))


def _group_rooms(root: Path) -> Iterator[int]:
    """What every limited group of the process, from its own to the root, has left (cgroup v2, memory controller).

    A group's `memory.current` counts the files that it has read; the kernel drops those before it refuses memory.
    """
    for group in _groups(root):
        try:
            limit, current = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            dropped = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
        except (OSError, ValueError):  # no limit ("max"), or a group that is not visible from here
            continue
        yield limit - current + dropped


def _groups(root: Path) -> list[Path]:
    """Folders of the process's group and of the groups around it."""
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return [top]
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    own = top.joinpath(*(part for part in path.split("/") if part not in ("", ".", "..")))
    return [own, *(parent for parent in own.parents if parent == top or top in parent.parents)]


def _available(meminfo: Path) -> int:
    try:
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        import psutil  # noqa: PLC0415  # a dependency there alone

        return int(psutil.virtual_memory().available)


def resident(root: Path = Path("/")) -> int:
    """Bytes of main memory that this process has, mapped files included; `root` as in `free_ram`."""
    try:
        return int((root / "proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):  # not Linux
        import psutil  # noqa: PLC0415  # a dependency there alone

        return int(psutil.Process().memory_info().rss)
