"""Main memory that can still be taken, on trees as the kernel shows them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from elastic_runtime.driver import free_memory

KB = 1024
FREE = 900_000 * KB


def _machine(root: Path, group: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 999999 kB\nMemAvailable:    {FREE // KB} kB\n")
    (root / "proc/self/cgroup").write_text(f"1:name=systemd:/other\n0::{group}\n")


def _group(root: Path, path: str, limit: str, current: int, inactive: int = 0, active: int = 0) -> None:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\nactive_file {active}\n")


def test_here() -> None:
    assert 1 << 20 < free_memory.free_ram() < 1 << 50
    assert 1 << 20 < free_memory.resident() < 1 << 40


def test_without_a_group_it_is_the_kernels_estimate(tmp_path: Path) -> None:
    _machine(tmp_path, "/")
    assert free_memory.free_ram(tmp_path) == FREE
    _group(tmp_path, "", "max", 10)
    assert free_memory.free_ram(tmp_path) == FREE


def test_files_that_were_read_count_as_free(tmp_path: Path) -> None:
    """A verification reads the whole bundle: its pages would otherwise fill the group's limit."""
    _machine(tmp_path, "/")
    _group(tmp_path, "", "5000000", 4_900_000, inactive=3_000_000, active=1_000_000)
    assert free_memory.free_ram(tmp_path) == 4_100_000


def test_the_tightest_of_nested_groups_decides(tmp_path: Path) -> None:
    _machine(tmp_path, "/user.slice/job/step")
    _group(tmp_path, "user.slice/job/step", "max", 1000)
    _group(tmp_path, "user.slice/job", "8000", 3000)
    _group(tmp_path, "user.slice", "7000", 1000)
    _group(tmp_path, "elsewhere", "10", 0)
    assert free_memory.free_ram(tmp_path) == 5000
    _group(tmp_path, "user.slice", "7000", 9000)
    assert free_memory.free_ram(tmp_path) == 0


def test_a_group_outside_of_what_is_visible_is_passed_over(tmp_path: Path) -> None:
    _machine(tmp_path, "/../../host/pod")
    _group(tmp_path, "", "6000", 2000)
    assert free_memory.free_ram(tmp_path) == 4000


def test_where_there_is_no_proc_psutil_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where the whole of the address space was taken for free memory."""
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=12345))
    asked = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=FREE), Process=lambda: process)
    monkeypatch.setitem(sys.modules, "psutil", asked)  # type: ignore[arg-type]
    monkeypatch.delattr(os, "sysconf")
    assert free_memory.free_ram(tmp_path) == FREE
    assert free_memory.resident(tmp_path) == 12345


def test_psutil_has_what_is_asked_of_it() -> None:
    psutil = pytest.importorskip("psutil")
    assert 1 << 20 < psutil.virtual_memory().available < 1 << 50
    assert 1 << 20 < psutil.Process().memory_info().rss < 1 << 40
