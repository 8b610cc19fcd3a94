"""What stops an engine before anything loads, and what is only a warning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elastic_runtime.errors import InputError
from elastic_runtime.manifest import BudgetEntry, Plugin, Status
from elastic_runtime.memory import Card
from elastic_runtime.preflight import (
    UnavailableError,
    cache_folder,
    check_card,
    check_memory,
    check_version,
    find_plugin,
    installed_version,
    library_abi,
    untested,
)

GIB = 1 << 30
CARD = Card("GeForce RTX 5090", "12.0", 32 * GIB, 31 * GIB)
LIBRARY = b'\x7fELF junk elastic-plugins-abi/1 {"library": "1", "tensorrt": "rtx-1.7"}\0 junk'


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


def test_a_missing_plugin_library(tmp_path: Path) -> None:
    plugin = Plugin("libelastic_plugins.so", "tensorrt-rtx-1.7")
    assert find_plugin(None, [tmp_path]) is None
    text = _text(lambda: find_plugin(plugin, [tmp_path / "a", tmp_path]))
    assert text.startswith(
        f"libelastic_plugins.so: expected the library in {tmp_path}/a, {tmp_path}, found no such file"
    )
    (tmp_path / plugin.library).write_bytes(LIBRARY)
    assert find_plugin(plugin, [tmp_path / "a", tmp_path]) == tmp_path / plugin.library


def test_a_plugin_library_of_another_abi(tmp_path: Path) -> None:
    path = tmp_path / "libelastic_plugins.so"
    path.write_bytes(LIBRARY)
    assert library_abi(path) == "rtx-1.7"
    text = _text(lambda: find_plugin(Plugin(path.name, "tensorrt-rtx-1.8"), [tmp_path]))
    assert text.startswith(f"{path}: expected a library for tensorrt-rtx-1.8, found one for rtx-1.7.")
    path.write_bytes(b"no versions here")
    with pytest.raises(InputError, match="expected a library of elastic plugins, found one that does not say"):
        find_plugin(Plugin(path.name, "tensorrt-rtx-1.7"), [tmp_path])


def test_not_enough_memory(budgets: tuple[BudgetEntry, ...]) -> None:
    budget = budgets[-1]
    engine = budget.engines[0]
    check_memory(budget, engine, CARD, batch=1)
    text = _text(lambda: check_memory(budget, engine, replace(CARD, total=24 * GIB, free=12 * GIB), batch=1))
    assert text.startswith(
        "budget '12b' on GeForce RTX 5090: expected 24.0 GiB of free memory (weights 22.9 + states 0.1"
    )
    assert "found 12.0 GiB of 24.0. Close what uses the card" in text


def test_an_engine_that_no_card_has_run_is_a_warning(budgets: tuple[BudgetEntry, ...]) -> None:
    engine = budgets[0].engines[0]
    assert untested(engine).startswith("4b/rtx5090.4096.engine was built and has not been run on a card yet")
    assert untested(replace(engine, status=Status("verified", "GeForce RTX 5090", "2026-01-31"))) == ""


def test_where_compiled_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder(tmp_path) == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("ELASTIC_CACHE", raising=False)
    assert cache_folder(None) == tmp_path / "xdg" / "elastic-runtime" / "kernels"
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "own"))
    assert cache_folder(None) == tmp_path / "own" / "kernels"
