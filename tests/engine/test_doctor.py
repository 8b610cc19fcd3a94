"""The doctor's lines about engines on this machine, and on machines that lack something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from elastic_export.engine import doctor, full
from elastic_export.engine.doctor import engine_facts
from elastic_export.engine.rtx import TensorRTRTX
from elastic_runtime.format.plugin_libraries import read_libraries
from plugin_libraries_folder import library_bytes, write_libraries


def test_the_builder_works_here() -> None:
    facts = {fact.name: fact for fact in engine_facts()}
    assert facts["builder"].state == "ok"
    assert facts["builder"].detail.startswith("built a test engine for SM120")
    assert facts["tensorrt-rtx"].detail.startswith("1.7.1")
    assert (facts["allocator"].state, facts["allocator"].detail.split()[0]) == ("ok", "oneTBB")
    assert set(facts) == {
        "python", "tensorrt-rtx", "tensorrt", "plugin libraries", "gpu", "allocator", "builder", "reproducible bytes",
        "temporary space",
    }  # fmt: skip


def test_the_full_tensorrt_and_what_it_lacks_here_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "for --flavour tensorrt, experimental: needs the full TensorRT to be installed, 10.15 or newer, found no"
    for version, gpus, state, detail in (
        (None, (), "absent", told),
        ("11.4.0.106", (), "absent", "needs an NVIDIA GPU: the full TensorRT times kernels while it builds, found no"),
        ("11.4.0.106", ("SM90",), "ok", "11.4.0.106, for --flavour tensorrt, experimental: builds for this GPU only"),
    ):
        monkeypatch.setattr(full, "package_version", lambda name, found=version: found)
        monkeypatch.setattr(doctor, "package_version", lambda name, found=version: found)
        monkeypatch.setattr(full, "gpu_compute_capabilities", lambda found=gpus: found)
        fact = doctor._full()
        assert (fact.name, fact.state, detail in fact.detail) == ("tensorrt", state, True), fact


def test_the_libraries_that_would_go_into_engines_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "find_libraries", lambda named: None)
    assert doctor._plugins().state == "absent"
    folder = write_libraries(tmp_path / "a", library_bytes("one"))
    monkeypatch.setattr(doctor, "find_libraries", lambda named: read_libraries(folder))
    fact = doctor._plugins()
    assert (fact.state, fact.detail) == ("ok", f"1 in {folder}, TensorRT headers rtx-1.7, CUDA 13.0")
    (folder / "libraries.json").write_text("{")
    monkeypatch.setattr(doctor, "find_libraries", lambda named: read_libraries(folder))
    assert doctor._plugins().state == "warn"


def test_the_probe_is_started_as_a_build_is(addresses_can_be_fixed: bool) -> None:
    [fact] = [fact for fact in engine_facts() if fact.name == "reproducible bytes"]
    assert (fact.detail == "address randomisation cannot be switched off here") == (not addresses_can_be_fixed)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "package_version", lambda name: None)
    monkeypatch.setattr(doctor, "gpu_compute_capabilities", lambda: ())
    monkeypatch.setattr(doctor, "PROBE", "elastic_export.engine.no_such_probe")
    facts = {fact.name: fact for fact in engine_facts()}
    assert (facts["tensorrt-rtx"].state, facts["tensorrt-rtx"].detail) == ("bad", "not installed")
    assert facts["gpu"].state == "absent"
    assert facts["builder"].state == "bad"
    assert "no_such_probe" in facts["builder"].detail


@pytest.mark.parametrize(
    ("version", "links", "why"),
    [
        (None, {}, r"; pip install tbb$"),
        ("2023.2.0", {}, "installed without its libraries: pip install --force-reinstall"),
        ("2023.2.0", {"x": "y"}, "the loader refuses to preload tbb 2023.2.0"),
    ],
)
def test_why_another_allocator_is_used(
    monkeypatch: pytest.MonkeyPatch, version: str | None, links: dict[str, str], why: str
) -> None:
    monkeypatch.setattr(doctor, "package_version", lambda name: version)
    monkeypatch.setattr(doctor, "allocator_links", lambda: links)
    monkeypatch.setattr(TensorRTRTX, "preloads", lambda product: ())
    facts = {fact.name: fact for fact in engine_facts()}
    assert facts["builder"].state == "ok"
    assert facts["allocator"].state == "warn"
    assert re.search(why, facts["allocator"].detail)


@pytest.mark.parametrize(
    ("name", "answer", "why"),
    [
        ("schedule_in_order", "lambda processor: isolation.NO_PRIVILEGE", "CAP_SYS_NICE"),
        ("address_randomization", "lambda: True", "address randomisation"),
    ],
)
def test_what_keeps_bytes_from_returning_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, answer: str, why: str
) -> None:
    names = "from elastic_export.engine import isolation, probe"
    denied = f"{names}\nisolation.{name} = {answer}\nraise SystemExit(probe.main())\n"
    (tmp_path / "denied.py").write_text(denied)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "PROBE", "denied")
    [fact] = [fact for fact in engine_facts() if fact.name == "reproducible bytes"]
    assert fact.state == "warn"
    assert why in fact.detail
