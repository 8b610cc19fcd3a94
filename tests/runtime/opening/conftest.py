"""A machine with a card of the engines' class, except for the card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from counting_card import CARD, Device, Executor
from elastic_runtime.bundle import Bundle
from elastic_runtime.opening import places
from elastic_runtime.tensorrt import open_tensorrt as engine_opening
from elastic_runtime.tensorrt import trt_engine
from elastic_runtime.tensorrt.backend_tensorrt import Executors


@pytest.fixture
def bundle(demo_bundle: Path) -> Bundle:
    return Bundle.open(demo_bundle)


@pytest.fixture
def card(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A machine with a card of the engines' class, except for the card."""
    device, asked = Device(), list[dict[str, Any]]()

    class Engine:
        scratch = 5

        def __init__(self, trt: Any, entry: Any, data: bytes, device: Any, **rest: Any) -> None:
            asked.append({"entry": entry, "data": data, **rest})
            self._entry = entry

        def tensors(self) -> set[str]:
            budget = next(b for b in bundle.budgets if self._entry.file in [e.file for e in b.engines])
            names = {port.name for port in self._entry.inputs} | {port.name for port in self._entry.outputs}
            return names | {item.name for item in bundle.recipe(budget).inputs}

        def check_locations(self) -> None:
            pass

        def check_logits(self) -> None:
            pass

        def check_aliases(self) -> None:
            pass

        def check_weights(self, recipe: Any) -> None:
            pass

        def executors(self) -> Executors:
            return Executors((Executor(), Executor()), Executor())  # type: ignore[arg-type]

        def close(self) -> None:
            asked.append({})

    monkeypatch.setattr(places, "find_card", lambda: CARD)
    monkeypatch.setattr(places, "card", lambda: CARD)
    monkeypatch.setattr(engine_opening, "CudaDevice", lambda: device)
    monkeypatch.setattr(engine_opening, "installed_version", lambda: bundle.budgets[0].engines[0].version)
    monkeypatch.setattr(engine_opening, "load_tensorrt", lambda: "trt")
    monkeypatch.setattr(trt_engine, "TrtEngine", Engine)
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path))
    return device, asked
