"""The compile gate: no kernel spills, outgrows its committed row or asks for more shared memory than there is."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
from cached_attention.testing.resources import of_namespace
from library_build import ARCHITECTURE, SINGLE, needs_nvcc, one_worker
from mamba2_mixer.testing import resources
from mamba2_mixer.testing.resources import Usage

REPORT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z1fv' for 'sm_75'
ptxas info    : Function properties for _Z1fv
    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 16 bytes cumulative stack size, 3092 bytes smem, 524 bytes cmem[0]
ptxas info    : Compiling entry function '_Z1gv' for 'sm_120'
ptxas info    : Function properties for _Z1gv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
"""


def test_parse_reads_ptxas() -> None:
    table = resources.parse(REPORT)
    assert table == {"_Z1fv": {75: Usage(64, 3092, 16, 32)}, "_Z1gv": {120: Usage(40, 0, 0, 0)}}


def test_every_fault_is_named() -> None:
    good = Usage(64, 1024, 0, 0)
    committed = {"f": {86: good}, "gone": {86: good}}
    assert resources.faults({"f": {86: good}, "gone": {86: good}}, committed) == []
    table = {
        "f": {86: replace(good, registers=65, shared=100 * 1024, stack=8, spills=8)},
        "new": {86: good},
        "gone": {86: replace(good, stack=72)},
    }
    found = resources.faults(table, committed)
    assert [f.split(": ")[1].split(",")[0] for f in found] == [
        "expected no spills",
        "expected at most 101376 bytes of shared memory",
        "expected Usage(registers=64",
        "expected a row in resources.json",
        "expected no variables in local memory",
        "expected Usage(registers=64",
    ]
    assert resources.faults({}, {"f": {86: good}}) == ["f: expected to be built, found only in resources.json"]


@pytest.mark.parametrize("change", [{"registers": 63}, {"shared": 1023}], ids=str)
def test_a_row_that_says_more_or_less_than_is_measured_is_stale(change: dict[str, int]) -> None:
    good = Usage(64, 1024, 0, 0)
    for committed, measured in ((good, replace(good, **change)), (replace(good, **change), good)):
        [found] = resources.faults({"f": {86: measured}}, {"f": {86: committed}})
        assert found == f"f on sm_86: expected {committed}, found {measured}; --write, if that is meant"


def test_of_another_compiler_only_what_no_compiler_may_do_is_a_fault() -> None:
    """How many registers a kernel takes is the compiler's choice: neither more nor less says anything of the source."""
    good = Usage(64, 1024, 0, 0)
    for change in ({"registers": 63}, {"registers": 255}, {"shared": 2048}):
        assert resources.faults({"f": {86: replace(good, **change)}}, {"f": {86: good}}, same_compiler=False) == []
    table = {"f": {86: replace(good, shared=100 * 1024, spills=8)}, "new": {86: good}}
    found = resources.faults(table, {"f": {86: good}, "gone": {86: good}}, same_compiler=False)
    assert [f.split(": ")[0] for f in found] == ["f on sm_86", "f on sm_86", "new on sm_86", "gone"]


def test_the_compiler_is_known_to_its_last_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of one release may allocate otherwise."""
    said = "Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0/compiler.36424714_0\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=said))
    assert resources.compiler() == "13.0.88"
    text = resources.to_json({"f": {86: Usage(64, 1024, 0, 0)}})
    table = {"f": {86: Usage(63, 1024, 0, 0)}}
    assert len(resources.differences(table, text)) == 1
    assert resources.differences(table, text.replace("13.0.88", "13.0.48")) == []


def test_committed_table_is_whole_and_within_limits() -> None:
    table = resources.from_json(resources.TABLE.read_text())
    assert resources.faults(table, table) == []
    assert all(set(usages) == set(resources.ARCHITECTURES) for usages in table.values())
    names = {
        "decode_step",
        "conv_prefill",
        "scan_prefill",
        "conv_operands",
        "chunk_prefill",
        "chunk_resident",
        "gated_norm",
        "norm_in_place",
    }
    assert {kernel.split("<")[0] for kernel in table} == names


def test_tensor_core_kernels_fit_the_smallest_card() -> None:
    """99 KiB a block from sm_86 on, and what a launch asks for is counted."""
    table = resources.from_json(resources.TABLE.read_text())
    asked = resources.dynamic_shared()
    assert {kernel for kernel in table if kernel.startswith("chunk_")} == set(asked)
    for kernel, dynamic in asked.items():
        assert {usage.shared > dynamic for arch, usage in table[kernel].items() if arch >= 80} == {True}
        assert max(usage.shared for usage in table[kernel].values()) <= resources.SHARED_LIMIT[86]


def test_readme_shows_the_table() -> None:
    readme = (resources.MIXER / "README.md").read_text()
    for kernel, usages in resources.from_json(resources.TABLE.read_text()).items():
        if kernel.split("<")[1].split(",")[0] in {"float", "float16"} and not kernel.startswith("chunk_"):
            continue  # the table is that of BF16 activations
        registers = " | ".join(str(usages[arch].registers) for arch in resources.ARCHITECTURES)
        assert f"| `{kernel}` | {registers} |" in readme
    most = max(
        usage.shared
        for usages in resources.from_json(resources.TABLE.read_text()).values()
        for usage in usages.values()
    )
    assert f"the most shared memory is {most:,} bytes" in readme


def within_the_table(measured: resources.Table, architectures: tuple[int, ...]) -> None:
    assert all(set(usages) == set(architectures) for usages in measured.values())
    assert resources.differences(measured, resources.TABLE.read_text()) == []


#: Of the libraries that the tests build.
BUILT = (SINGLE, ARCHITECTURE)


@needs_nvcc
@one_worker
@pytest.mark.timeout(900)
def test_the_librarys_kernels_stay_within_the_table(ptxas_report: str) -> None:
    within_the_table(resources.read_report(of_namespace(ptxas_report, "7elastic6mamba2")), BUILT)


EVERY_OTHER = tuple(arch for arch in resources.ARCHITECTURES if arch not in BUILT)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc was not found: registers and spills were not measured")
@pytest.mark.slow
@pytest.mark.timeout(900)  # of five: more than a minute of one core, which others may share
def test_on_other_architectures_too() -> None:
    within_the_table(resources.measure(EVERY_OTHER), EVERY_OTHER)
