"""How much a machine has left, as Linux says it: the whole, and the control groups of either version."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path

import pytest

from elastic_export.plan.machine import Space, free_disk, free_memory, this_machine

GIB = 1 << 30
MEMINFO = "MemTotal: 33554432 kB\nMemFree: 1048576 kB\nMemAvailable: 16777216 kB\nSwapFree: 0 kB\n"  # 16 GiB available


def machine(root: Path, files: Mapping[str, str | int]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def first(limit: int | str, used: int, cached: int = 0, folder: str = "") -> dict[str, str | int]:
    base = f"sys/fs/cgroup/memory{folder}"
    return {
        f"{base}/memory.limit_in_bytes": limit,
        f"{base}/memory.usage_in_bytes": used,
        f"{base}/memory.stat": f"cache 1\ntotal_active_file {cached}\ntotal_inactive_file 0",
    }


def second(limit: int | str, used: int, cached: int = 0, folder: str = "") -> dict[str, str | int]:
    base = f"sys/fs/cgroup{folder}"
    return {
        f"{base}/memory.max": limit,
        f"{base}/memory.current": used,
        f"{base}/memory.stat": f"anon 1\nactive_file 0\ninactive_file {cached}",
    }


V1 = {"proc/self/cgroup": "4:memory:/job/step\n3:cpuset:/\n0::/"}
V2 = {"proc/self/cgroup": "0::/job/step", "sys/fs/cgroup/cgroup.controllers": "memory"}
HYBRID = V1 | {"sys/fs/cgroup/unified/cgroup.controllers": ""}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 16 * GIB),
        ({"proc/meminfo": MEMINFO.replace("SwapFree: 0", "SwapFree: 2097152")}, 18 * GIB),
        ({"proc/self/cgroup": "0::/"}, 16 * GIB),
        (V1 | first(0x7FFFFFFFFFFFF000, 3 * GIB), 16 * GIB),
        (V1 | first(4 * GIB, 3 * GIB), GIB),
        (V1 | first(4 * GIB, 3 * GIB, 2 * GIB), 3 * GIB),  # what it has read is given back
        (V1 | first(8 * GIB, 0) | first(4 * GIB, GIB, folder="/job"), 3 * GIB),  # a group around ours is narrower
        (V1 | first(8 * GIB, 0) | first(2 * GIB, GIB, folder="/job/step"), GIB),
        (V1 | first(GIB, 2 * GIB), 0),
        (HYBRID | first(4 * GIB, 3 * GIB), GIB),
        (V2 | second("max", 3 * GIB, folder="/job/step"), 16 * GIB),
        (V2 | second(4 * GIB, 3 * GIB, folder="/job/step"), GIB),
        (V2 | second(4 * GIB, 3 * GIB, GIB, folder="/job"), 2 * GIB),
        (V2 | second(64 * GIB, 0), 16 * GIB),
        # In a container the name is one of the world outside, and what is mounted is ours.
        ({**V2, "proc/self/cgroup": "0::/../../docker/ab"} | second(4 * GIB, 3 * GIB), GIB),
        (V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "nonsense"}, 16 * GIB),
    ],
)  # fmt: skip
def test_free_memory_is_the_least_that_anything_leaves(tmp_path: Path, files: dict[str, str | int], free: int) -> None:
    found = free_memory(machine(tmp_path, files))
    assert found is not None
    assert found.free == free


def test_a_limit_of_addresses_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (GIB, resource.RLIM_INFINITY))
    found = free_memory(machine(tmp_path, {"proc/self/status": "Name:\tpython\nVmSize:\t  262144 kB"}))
    assert found == Space(3 * GIB // 4, "the limit of a process's addresses (ulimit -v 1048576)")


def test_who_is_short_is_said(tmp_path: Path) -> None:
    found = free_memory(machine(tmp_path, V2 | second(4 * GIB, 3 * GIB)))
    assert found is not None
    assert found.where == "the memory limit of its control group (4.0 GiB)"
    assert free_memory(tmp_path / "a system without /proc") is None


def test_a_disk_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    found = free_disk(tmp_path / "link" / "a" / "b")
    assert found is not None
    assert found.where == f"the file system of {tmp_path / 'real'}"
    assert found.free > 0
    assert free_disk(Path("/proc/none")) is None


@pytest.mark.parametrize("size", [0, 100, 3 * 4096 + 5])
def test_every_rate_of_a_machine_is_a_number(tmp_path: Path, size: int) -> None:
    shard = tmp_path / "model.safetensors"
    shard.write_bytes(b"x" * size)
    for found in (this_machine(tmp_path / "out", shard), this_machine(tmp_path, None)):
        rates = vars(found.rates)
        assert all(0 < rate < float("inf") for rate in rates.values()), rates
        assert found.processors >= 1
    assert [path.name for path in tmp_path.iterdir()] == [shard.name]
