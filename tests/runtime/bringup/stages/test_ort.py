"""Stage `ort`: on a stand-in for a card's memory under the CPU provider (card_memory.py), and where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from card_memory import apart
from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.stages import measuring, ort
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.format.golden import read_golden
from elastic_runtime.ort.open_onnx import card_needed

GIB = 1 << 30


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A card that has that many bytes free at each look, the last number from then on."""
    free = [30 * GIB]

    def look() -> Card:
        return Card("RTX 5090", "12.0", 32 * GIB, free.pop(0) if len(free) > 1 else free[0])

    monkeypatch.setattr(ort, "card", look)
    monkeypatch.setattr(measuring, "find_card", look)
    return free


def _place(bundle: Path, folder: Path) -> Place:
    return Place(bundle, folder, budget="small")


def test_the_golden_run_on_the_card_is_brought_home(demo_bundle: Path, tmp_path: Path, card: list[int]) -> None:
    card[:] = [30 * GIB, 30 * GIB, 28 * GIB]  # asked for once, before, and meanwhile
    with apart():
        found = ort.run(_place(demo_bundle, tmp_path))
    assert found["within_bounds"], found
    with np.load(tmp_path / "ort-small.npz") as file:
        assert "logits.0.0" in file.files
    (nodes,) = found["nodes"].values()
    assert list(found["nodes"]) == ["CPUExecutionProvider"]  # of the stand-in
    assert nodes["MatMul"] > 1
    memory = found["memory"]
    bundle = Bundle.open(demo_bundle)
    budget = bundle.budget("small")
    reach = read_golden(bundle.path / str(budget.golden)).reach
    precision = bundle.manifest.precision
    assert memory["reckoned"] == card_needed(budget, bundle.recipe(budget), context=reach, batch=1, precision=precision)
    assert memory["taken_at_most"] == 2 * GIB
    assert memory["beside_those"] == 2 * GIB - sum(memory["by_the_runtime"].values())
    assert not list(tmp_path.glob("*.json"))  # the profile is read and gone


def test_it_says_why_onnxruntime_does_not_take_the_card(demo_bundle: Path, tmp_path: Path, card: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("elastic_runtime.ort.onnx_memory.CUDA", "NoSuchProvider")
        found = ort.run(_place(demo_bundle, tmp_path))
    assert found["not_run"].startswith("onnxruntime on a card: expected a CUDA execution provider that works, found ")


def test_it_says_which_package_an_engines_consumer_would_need(
    demo_bundle: Path, tmp_path: Path, card: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "elastic_runtime.ort.onnx_memory", None)  # as where onnxruntime is not installed
    found = ort.run(_place(demo_bundle, tmp_path))
    assert found["not_run"].startswith("the onnxruntime backend: expected the packages onnx and onnxruntime")


def test_it_says_how_much_memory_there_would_have_to_be(demo_bundle: Path, tmp_path: Path, card: list[int]) -> None:
    card[:] = [GIB]
    with apart():
        found = ort.run(_place(demo_bundle, tmp_path))
    assert found["not_run"].startswith("budget 'small' under onnxruntime on RTX 5090: expected 1.5 GiB of free memory")


def test_nodes_are_counted_by_provider_and_op_once_each() -> None:
    def event(name: str, provider: str, op: str) -> dict[str, object]:
        return {"cat": "Node", "name": name, "args": {"provider": provider, "op_name": op}}

    events = [event("a", "CUDA", "MatMul"), event("b", "CUDA", "MatMul"), event("c", "CPU", "Shape")]
    other = [{"cat": "Session", "name": "run"}, {"cat": "Node", "name": "a_fence", "args": {"op_name": "MatMul"}}]
    assert ort.providers([*events, *other, *events]) == {"CUDA": {"MatMul": 2}, "CPU": {"Shape": 1}}
