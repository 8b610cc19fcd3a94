"""The compile gate of the attention kernels: no spills, no growth, shared memory that every card since sm_80 has."""

from __future__ import annotations

import shutil

import pytest
from cached_attention.testing import resources
from library_build import ARCHITECTURE, SINGLE, needs_nvcc, one_worker
from mamba2_mixer.testing.resources import SHARED_LIMIT, differences, faults, from_json

TABLE = from_json(resources.TABLE.read_text())


def test_committed_table_is_whole_and_within_limits() -> None:
    assert faults(TABLE, TABLE) == []
    for kernel, usages in TABLE.items():
        assert set(usages) == {a for a in resources.ARCHITECTURES if resources.runs(kernel, a)}, kernel
    assert {kernel.split("<")[0] for kernel in TABLE} == {"append_kv", "attend", "merge"}
    most = max(usage.shared for usages in TABLE.values() for usage in usages.values())
    assert most <= SHARED_LIMIT[86]  # the least of all, 99 KiB


def test_shared_memory_that_a_launch_asks_for_is_counted() -> None:
    asked = resources.dynamic_shared()
    assert set(asked) == {kernel for kernel in TABLE if kernel.startswith("attend<")}
    for kernel, dynamic in asked.items():
        assert {usage.shared for usage in TABLE[kernel].values()} == {dynamic}


def test_report_is_read_by_namespace() -> None:
    entry = (
        "ptxas info    : Compiling entry function '_ZN7elastic{}v' for 'sm_120'\nptxas info    : Used {} registers\n"
    )
    report = "ptxas info    : 0 bytes gmem\n" + entry.format("6mamba21fE", 40) + entry.format("9attention1gE", 50)
    assert "Used 40" in resources.of_namespace(report, "7elastic6mamba2")
    assert "Used 50" not in resources.of_namespace(report, "7elastic6mamba2")
    assert "Used 50" in resources.of_namespace(report, resources.NAMESPACE)


def test_readme_shows_the_table() -> None:
    readme = (resources.ATTENTION / "README.md").read_text()
    for kernel, usages in TABLE.items():
        if "<float16" in kernel:
            continue  # the table is that of BF16
        registers = " | ".join(str(usages[arch].registers) for arch in sorted(usages))
        shared = usages[ARCHITECTURE].shared
        assert f"| `{kernel}` | {registers} | {shared:,} |" in readme


def within_the_table(measured: resources.Table, architectures: tuple[int, ...]) -> None:
    for kernel, usages in measured.items():
        assert set(usages) == {a for a in architectures if resources.runs(kernel, a)}, kernel
    assert differences(measured, resources.TABLE.read_text()) == []


#: Of the libraries that the tests build.
BUILT = (SINGLE, ARCHITECTURE)


@needs_nvcc
@one_worker
@pytest.mark.timeout(900)
def test_the_librarys_kernels_stay_within_the_table(ptxas_report: str) -> None:
    within_the_table(resources.read_report(ptxas_report), BUILT)


EVERY_OTHER = tuple(arch for arch in resources.ARCHITECTURES if arch not in BUILT)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc was not found: registers and spills were not measured")
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_other_architectures_too() -> None:
    within_the_table(resources.measure(EVERY_OTHER), EVERY_OTHER)
