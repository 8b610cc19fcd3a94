"""What stops an engine before anything loads, and what is only a warning."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import UnavailableError
from elastic_runtime.fit.vram import vram_needed
from elastic_runtime.format.manifest import BudgetEntry, Status
from elastic_runtime.tensorrt import preflight
from elastic_runtime.tensorrt.preflight import (
    check_card,
    check_driver,
    check_memory,
    check_version,
    crowded,
    installed_version,
    load_tensorrt,
    package_cuda,
    untested,
)

GIB = 1 << 30
CARD = Card("GeForce RTX 5090", "12.0", 32 * GIB, 31 * GIB)


def _text(call: Callable[[], object]) -> str:
    with pytest.raises(UnavailableError) as caught:
        call()
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_a_card_of_another_class(budgets: tuple[BudgetEntry, ...]) -> None:
    engine = budgets[0].engines[0]
    check_card(engine, CARD)
    assert _text(lambda: check_card(engine, replace(CARD, name="GeForce RTX 4090", compute_capability="8.9"))) == (
        "4b/rtx5090.4096.engine: expected a card of compute capability 12.0, found GeForce RTX 4090 with 8.9. "
        "Export the bundle for it with another --target."
    )


def test_another_tensorrt(budgets: tuple[BudgetEntry, ...]) -> None:
    engine = budgets[0].engines[0]
    check_version(engine, "1.7.1.116")
    assert _text(lambda: check_version(engine, "1.8.0.1")) == (
        "4b/rtx5090.4096.engine: expected tensorrt-rtx 1.7.1, found tensorrt-rtx 1.8.0.1. "
        "Pip install tensorrt-rtx==1.7.1.*."
    )
    assert "found no such package" in _text(lambda: check_version(engine, None))
    assert "found one of tensorrt." in _text(lambda: check_version(replace(engine, flavour="tensorrt"), "10.13"))
    assert installed_version() is None or installed_version()[0].isdigit()  # type: ignore[index]


def test_a_driver_of_an_older_cuda(budgets: tuple[BudgetEntry, ...]) -> None:
    engine = budgets[0].engines[0]
    for found, made_for in (((13, 1), 13), ((14, 0), 13), (None, 13), ((12, 8), None)):
        check_driver(engine, found, made_for)
    assert _text(lambda: check_driver(engine, (12, 8), 13)) == (
        "4b/rtx5090.4096.engine: expected a driver that runs CUDA 13 (580 or newer), found one for CUDA 12.8. "
        "Update NVIDIA's driver."
    )


def test_the_package_says_which_cuda_it_is_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert package_cuda() == (13 if installed_version() else None)

    def only(name: str) -> str:
        if name != "tensorrt-rtx-cu12":
            raise preflight.importlib.metadata.PackageNotFoundError
        return "1.7.1.116"

    monkeypatch.setattr(preflight.importlib.metadata, "version", only)
    assert package_cuda() == 12
    monkeypatch.setattr(preflight, "_DRIVERS", {})
    assert package_cuda() is None


def test_not_enough_memory(budgets: tuple[BudgetEntry, ...]) -> None:
    budget = budgets[-1]
    engine = budget.engines[0]
    check_memory(budget, engine, CARD, batch=1)
    text = _text(lambda: check_memory(budget, engine, replace(CARD, total=24 * GIB, free=12 * GIB), batch=1))
    assert text.startswith(
        "budget '12b' on GeForce RTX 5090: expected 24.0 GiB of free memory (weights 22.9 + states 0.1"
    )
    assert "found 12.0 GiB of 24.0. Close what uses the card" in text


def test_windows_lends_main_memory_where_the_card_is_nearly_full(
    budgets: tuple[BudgetEntry, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = budgets[-1]
    engine = budget.engines[0]
    need = vram_needed(budget.size(engine), context=engine.max_context, batch=1).total
    tight, roomy = replace(CARD, free=need), replace(CARD, free=need * 10 // 9 + 10)
    assert crowded(budget, engine, tight, batch=1) == ""
    monkeypatch.setattr(sys, "platform", "win32")
    assert crowded(budget, engine, roomy, batch=1) == ""
    text = crowded(budget, engine, tight, batch=1)
    assert text.startswith(
        "warning: budget '12b' takes 24.0 of the 24.0 GiB that are free on GeForce RTX 5090; where other programs"
    )
    assert "Windows moves GPU memory to main memory without a word" in text


def test_an_engine_that_no_card_has_run_is_a_warning(budgets: tuple[BudgetEntry, ...]) -> None:
    engine = budgets[0].engines[0]
    assert untested(engine).startswith("4b/rtx5090.4096.engine was built and has not been run on a card yet")
    assert untested(replace(engine, status=Status("verified", "GeForce RTX 5090", "2026-01-31"))) == ""
    assert untested(engine, Status("verified", "GeForce RTX 5090", "2026-01-31")) == ""


def test_ctrl_c_while_the_package_loads_is_no_reason_to_run_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(preflight.importlib, "import_module", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_tensorrt()


def test_a_package_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> None:
        raise OSError("libcudart.so.13: no such file")

    monkeypatch.setattr(preflight.importlib, "import_module", fails)
    assert _text(load_tensorrt).startswith(
        "the package tensorrt-rtx: expected it to load, found OSError: libcudart.so.13: no such file. Install it again"
    )
