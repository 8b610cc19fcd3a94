"""Verification of engines: those that a card ran, those that no card here runs, and those that were required."""

from __future__ import annotations

import datetime
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from changed_bundle import only_small, reseal
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import UnavailableError
from elastic_runtime.format.manifest_reader import read_manifest
from elastic_runtime.ort.open_onnx import open_onnx
from elastic_runtime.tensorrt.engine_cache import cache_folder, remembered
from elastic_runtime.verify.bundle_verification import verify_bundle
from elastic_runtime.verify.verified import Outcome, Verified


def test_a_required_engine_that_was_not_run_fails(demo_bundle: Path) -> None:
    result = verify_bundle(demo_bundle, require_engine=True)
    if all(outcome.replay for outcome in result.engines):
        pytest.skip("a card of the engines' class is here")
    assert not result.passed
    assert "an engine was required to run and was not" in result.text()
    assert result.text().endswith("NOT VERIFIED")


def test_a_required_engine_that_the_bundle_does_not_have_is_said() -> None:
    lines = ["b: 3 files, none damaged", "  an engine was required, the bundle has none", "NOT VERIFIED"]
    assert Verified("b", 3, (), (), require_engine=True).text().splitlines() == lines
    assert "required" not in Verified("b", 3, (), ()).text()
    assert "required" not in Verified("b", 3, ("x is damaged",), (), require_engine=True).text()  # none was looked at


@pytest.fixture
def card(copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A machine with a card whose engines are played by the twins; what they were opened with is noted."""
    noted: dict[str, Any] = {"factor": 1.0, "refusal": ()}

    def open_engine(bundle: Bundle, budget: Any, engine: Any, wishes: Any, card: Card, *, say: Any) -> Any:
        noted["plugins"], noted["batch"] = wishes.plugin_folder, wishes.batch
        if engine.file in noted["refusal"]:
            raise UnavailableError(engine.file, expected="a library", found="none")
        backend = open_onnx(bundle, budget, context=512, max_tokens=64, threads=1)
        call = backend.call
        backend.call = lambda *a: call(*a) * np.float32(noted["factor"])  # type: ignore[method-assign]
        return backend

    only_small(copy)
    found = Card("GeForce RTX 5080", "12.0", 16 << 30, 15 << 30)
    monkeypatch.setattr("elastic_runtime.verify.bundle_verification.find_card", lambda: found)
    monkeypatch.setattr("elastic_runtime.tensorrt.open_tensorrt.open_engine", open_engine)
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "cache"))
    return noted


def test_an_engine_verified_on_a_card_says_which_and_when_and_is_remembered(
    copy: Path, card: dict[str, Any], tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    result = verify_bundle(copy, plugins=tmp_path)
    assert result.passed
    assert (card["plugins"], card["batch"]) == (tmp_path, 2)
    (outcome,) = result.engines
    assert outcome.status is not None
    today = datetime.datetime.now(datetime.UTC).date()
    assert abs((datetime.date.fromisoformat(str(outcome.status.date)) - today).days) <= 1
    line = f"small/rtx5080.engine: ok on GeForce RTX 5080, {outcome.status.date}: logits off by"
    assert line in result.text()
    manifest = read_manifest(copy)
    engine = manifest.budgets[0].engines[0]
    folder = cache_folder(None)
    assert folder == tmp_path / "cache" / "kernels"
    assert remembered(folder, manifest, engine, "GeForce RTX 5080") == outcome.status
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    card["factor"] = 1.2  # the same engine on a driver that spoils it
    result = verify_bundle(copy)
    assert not result.passed
    assert "small/rtx5080.engine: FAILED: logits off by" in result.text()
    assert remembered(folder, manifest, engine, "GeForce RTX 5080") is None


def test_an_engine_that_this_machine_cannot_run_is_listed(copy: Path, card: dict[str, Any]) -> None:
    card["refusal"] = ("small/rtx5080.engine",)
    result = verify_bundle(copy)
    assert result.passed
    assert "small/rtx5080.engine: not run: small/rtx5080.engine: expected a library, found none." in result.text()
    assert not verify_bundle(copy, require_engine=True).passed


def _with_more_engines(bundle: Path, *more: dict[str, Any]) -> None:
    """As many engines more of the small budget, unlike its first in what is named; their files are its copies."""
    manifest = read_manifest(bundle)
    (budget,) = manifest.budgets
    first = budget.engines[0]
    for changes in more:
        shutil.copyfile(bundle / first.file, bundle / changes["file"])
    engines = (first, *(replace(first, **changes) for changes in more))
    files = (*manifest.files, *(replace(manifest.files[0], path=changes["file"]) for changes in more))
    reseal(bundle, budgets=(replace(budget, engines=engines),), files=files)


def test_of_engines_side_by_side_one_that_ran_is_enough() -> None:
    native, idle = Outcome("native"), Outcome("native", not_run="no memory")
    plugin = Outcome("plugin", not_run="no library")
    for engines, passed in (((native, plugin), True), ((idle, plugin), False)):
        result = Verified("b", 3, (), (), (), engines, require_engine=True, alternatives=(("native", "plugin"),))
        assert result.passed == passed
        assert ("  an engine was required to run and was not: native or plugin" in result.text().splitlines()) != passed


def test_an_engine_of_each_context_and_target_for_the_card_is_required_and_none_of_another_card(
    copy: Path, card: dict[str, Any]
) -> None:
    other, short = "small/other.engine", "small/short.engine"
    _with_more_engines(
        copy,
        {"file": other, "target": "rtx4090", "compute_capabilities": ("8.9",)},
        {"file": short, "max_context": 512},
    )
    result = verify_bundle(copy, require_engine=True)
    assert f"{other}: not run" in result.text()
    assert result.passed
    card["refusal"] = (short,)
    result = verify_bundle(copy, require_engine=True)
    assert f"  an engine was required to run and was not: {short}" in result.text().splitlines()
    assert not result.passed
