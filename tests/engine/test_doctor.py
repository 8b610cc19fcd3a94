"""The doctor's lines about engines on this machine, and on machines that lack something."""

from __future__ import annotations

import pytest

from elastic_export.engine import doctor
from elastic_export.engine.doctor import engine_facts


def test_the_builder_works_here() -> None:
    facts = {fact.name: fact for fact in engine_facts()}
    assert facts["builder"].state == "ok"
    assert facts["builder"].detail.startswith("built a test engine for SM120")
    assert facts["tensorrt-rtx"].detail.startswith("1.7.1")
    assert (facts["allocator"].state, facts["allocator"].detail.split()[0]) == ("ok", "oneTBB")
    assert set(facts) == {
        "python", "tensorrt-rtx", "tensorrt", "gpu", "allocator", "builder", "reproducible bytes", "temporary space"
    }  # fmt: skip


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "package_version", lambda name: None)
    monkeypatch.setattr(doctor, "gpu_compute_capabilities", lambda: ())
    monkeypatch.setattr(doctor, "allocator_links", dict)
    monkeypatch.setattr(doctor, "PROBE", "elastic_export.engine.no_such_probe")
    facts = {fact.name: fact for fact in engine_facts()}
    assert (facts["tensorrt-rtx"].state, facts["tensorrt-rtx"].detail) == ("bad", "not installed")
    assert facts["gpu"].state == "absent"
    assert (facts["allocator"].state, "pip install tbb" in facts["allocator"].detail) == ("warn", True)
    assert facts["builder"].state == "bad"
    assert "no_such_probe" in facts["builder"].detail
