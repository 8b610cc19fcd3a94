"""Opening: the choice of budget and backend, what is said of it, what switching costs, memory that is not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import BuildError, InputError, UnavailableError
from elastic_runtime.opening import Opener, candidates, loading, places
from elastic_runtime.ort import open_onnx as onnx_opening
from elastic_runtime.ort.open_onnx import RamNeed, plan_cpu, ram_needed
from elastic_runtime.session import Session
from elastic_runtime.session_request import Request

GIB = 1 << 30


def test_without_a_card_the_largest_budget_runs_on_the_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(places, "find_card", lambda: None)
    opener = Opener(bundle, Request(context=64, threads=1), say=said.append)
    with opener.open() as session:
        assert session.backend.name == "onnxruntime"
        assert session.backend.max_context == 64
    assert opener.budget
    assert opener.budget.name == "large"
    assert said == ["no NVIDIA card here: running on the CPU with onnxruntime, in float32 arithmetic"]


def test_a_driver_that_shows_no_card_is_said(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    reason = InputError("GPU memory", expected="the NVIDIA driver to start", found="NVML error 18", todo="restart")
    monkeypatch.setattr(places, "find_card", lambda: None)
    monkeypatch.setattr(places, "why_no_card", lambda: reason)
    Opener(bundle, Request(budget="small", context=64, threads=1), say=said.append).open().close()
    assert said == [f"no NVIDIA card here: running on the CPU with onnxruntime, in float32 arithmetic; {reason}"]
    with pytest.raises(UnavailableError, match="device gpu: expected the NVIDIA driver to start, found NVML error 18"):
        Opener(bundle, Request(device="gpu", context=64), say=said.append).open()


def test_a_session_that_does_not_come_to_be_closes_its_backend(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    backends: list[Any] = []

    def broken(backend: Any, batch: int) -> Session:
        backends.append(backend)
        raise BuildError("session", expected="luck", found="none")

    monkeypatch.setattr(loading, "Session", broken)
    with pytest.raises(BuildError, match="session: expected luck, found none"):
        Opener(bundle, Request(budget="small", backend="onnxruntime", context=64, threads=1)).open()
    with pytest.raises(InputError, match="one that was closed"):
        backends[0].start(1)


def test_a_card_of_another_class_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(places, "find_card", lambda: Card("H200", "9.0", GIB, GIB))
    Opener(bundle, Request(budget="small", threads=1), say=said.append).open().close()
    assert said[0].startswith("H200 has compute capability 9.0, the engines are for 12.0: running on the CPU")


def test_memory_that_is_given_chooses(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find_card", lambda: None)
    need = [r.need.total for r in bundle.choose(vram=GIB, context=1).reckonings if r.need]
    assert need == sorted(need, reverse=True)
    opener = Opener(bundle, Request(vram=need[1], threads=1))
    opener.open().close()
    assert opener.budget
    assert opener.budget.name == "medium"
    assert opener.explain().splitlines()[2].endswith(": chosen")
    with pytest.raises(BuildError, match="bundle: expected a budget that fits, found none"):
        Opener(bundle, Request(vram=1)).open()


def test_the_cpu_takes_the_largest_context_that_fits(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = bundle.budget("small")
    engine = budget.engines[0]
    budget = replace(budget, engines=tuple(replace(engine, max_context=c) for c in (512, 1 << 20)))
    recipe = bundle.recipe(budget)
    need = {c: ram_needed(budget, recipe, context=c, batch=3, precision="bf16").float32 for c in (512, 1 << 20)}

    def context(free: int, asked: int | None = None) -> int:
        plan = plan_cpu(bundle, budget, context=asked, rows=3, weights="float32", free=free)
        return plan.context

    assert context(need[1 << 20]) == 1 << 20
    assert context(need[1 << 20] - 1) == 512
    assert context(0) == 512
    assert context(need[1 << 20], 77) == 77


def test_rows_and_the_form_of_weights_count(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = bundle.budget("large")
    recipe = bundle.recipe(budget)

    def need(batch: int) -> RamNeed:
        return ram_needed(budget, recipe, context=4096, batch=batch, precision="bf16")

    request = Request(budget="large", backend="onnxruntime", context=4096, batch=32, threads=1)
    monkeypatch.setattr(onnx_opening, "free_ram", lambda: need(32).stored - 1)
    with pytest.raises(BuildError, match="budget 'large' on the CPU"):
        Opener(bundle, request).open()
    monkeypatch.setattr(places, "find_card", lambda: None)
    for weights, free, name in (("auto", need(1).stored, "large"), ("float32", need(1).float32 - 1, "medium")):
        monkeypatch.setattr(onnx_opening, "free_ram", lambda free=free: free)
        monkeypatch.setattr(candidates, "free_ram", lambda free=free: free)
        opener = Opener(bundle, Request(weights=weights, context=4096, threads=1))  # type: ignore[arg-type]
        opener.open().close()
        assert opener.budget
        assert opener.budget.name == name


def test_the_error_says_how_much_memory_it_would_take(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    need = RamNeed(float32=20 * GIB, stored=11 * GIB)
    assert [need.form("auto", free * GIB, "12b") for free in (20, 19, 11)] == ["float32", "stored", "stored"]
    with pytest.raises(BuildError) as caught:
        need.form("auto", 10 * GIB, "12b")
    assert str(caught.value) == (
        "budget '12b' on the CPU: expected 11.0 GiB of free memory (float32 arithmetic, weights as stored), "
        "found 10.0 GiB. Take a smaller budget or context, or run its engine on a card."
    )
    with pytest.raises(
        BuildError, match=r"expected 20\.0 GiB of free memory \(float32 arithmetic, weights in float32\)"
    ):
        need.form("float32", 19 * GIB, "12b")
    monkeypatch.setattr(onnx_opening, "free_ram", lambda: 1 << 20)
    with pytest.raises(BuildError, match="budget 'small' on the CPU: expected 0"):
        Opener(bundle, Request(budget="small", backend="onnxruntime")).open()


def test_the_reckoning_counts_weights_states_and_caches(bundle: Bundle) -> None:
    budget = bundle.budget("small")
    recipe = bundle.recipe(budget)
    need = ram_needed(budget, recipe, context=1000, batch=2, precision="bf16")
    more = ram_needed(budget, recipe, context=2000, batch=2, precision="bf16")
    assert need.float32 - need.stored == 4 * budget.parameters - budget.weight_bytes
    assert more.float32 - need.float32 == 2 * 2 * 2 * 1000 * budget.kv_bytes_per_token
    # 12 + 8 + 4 + 8 heads of 24 x 32 floats are 98304 bytes, float32 already; the rest, conv states and caches, doubles
    ssm, narrow = 98304, budget.state_bytes - 98304 + 1000 * budget.kv_bytes_per_token
    wide = ram_needed(budget, recipe, context=1000, batch=2, precision="fp32")
    assert need.float32 - wide.float32 == 2 * 2 * narrow
    none = ram_needed(budget, recipe, context=1000, batch=0, precision="bf16")
    assert need.float32 - none.float32 == 2 * 2 * (ssm + 2 * narrow)


def test_missing_packages_are_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BuildError, match="the onnxruntime backend: expected the packages onnx and onnxruntime"):
        Opener(bundle, Request(budget="small", backend="onnxruntime")).open()
