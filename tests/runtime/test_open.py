"""Opening: the choice of budget and backend, what is said of it, what switching costs, memory that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_runtime import open as opening
from elastic_runtime import open_onnx as onnx_opening
from elastic_runtime import open_tensorrt as engine_opening
from elastic_runtime import trt_engine
from elastic_runtime.bundle import Bundle
from elastic_runtime.device import ALIGNMENT
from elastic_runtime.errors import BuildError, InputError, UnavailableError
from elastic_runtime.memory import Card
from elastic_runtime.open import Opener, Request
from elastic_runtime.open_onnx import RamNeed, ram_needed

GIB = 1 << 30
CARD = Card("GeForce RTX 5080", "12.0", 16 * GIB, 15 * GIB)


@pytest.fixture
def bundle(demo_bundle: Path) -> Bundle:
    return Bundle.open(demo_bundle)


def test_without_a_card_the_largest_budget_runs_on_the_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(opening, "find_card", lambda: None)
    opener = Opener(bundle, Request(context=64, threads=1), say=said.append)
    with opener.open() as session:
        assert session.backend.name == "onnxruntime"
        assert session.backend.max_context == 64
    assert opener.budget
    assert opener.budget.name == "large"
    assert said == ["no NVIDIA card here: running on the CPU with onnxruntime, in float32 arithmetic"]


def test_a_card_of_another_class_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(opening, "find_card", lambda: Card("H200", "9.0", GIB, GIB))
    Opener(bundle, Request(budget="small", threads=1), say=said.append).open().close()
    assert said[0].startswith("H200 has compute capability 9.0, the engines are for 12.0: running on the CPU")


def test_memory_that_is_given_chooses(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "find_card", lambda: None)
    need = [r.need.total for r in bundle.choose(vram=GIB, context=1).reckonings if r.need]
    assert need == sorted(need, reverse=True)
    opener = Opener(bundle, Request(vram=need[1], threads=1))
    opener.open().close()
    assert opener.budget
    assert opener.budget.name == "medium"
    assert opener.explain().splitlines()[2].endswith(": chosen")
    with pytest.raises(BuildError, match="bundle: expected a budget that fits, found none"):
        Opener(bundle, Request(vram=1)).open()


def test_switching_keeps_files_mapped_and_feeds_the_transcript_again(bundle: Bundle) -> None:
    opener = Opener(bundle, Request(budget="small", backend="onnxruntime", context=128, batch=2, threads=1))
    session = opener.open()
    rows = [[1, 2, 3, 4, 5], [9, 8, 7]]
    session.prefill(rows)
    mapped = dict(opener._files)
    assert len(mapped) == 2
    session, logits, cost = opener.switch(session, "medium")
    assert session.tokens == rows
    assert (cost.budget, cost.tokens) == ("medium", 8)
    assert cost.open_seconds > 0 < cost.prefill_seconds
    assert {path: id(file) for path, file in opener._files.items()} == {p: id(f) for p, f in mapped.items()}
    session.reset()
    np.testing.assert_array_equal(session.prefill(rows), logits)
    with pytest.raises(InputError, match="budget 'huge'"):
        opener.switch(session, "huge")
    session.decode([1, 1])  # the old one still lives
    session.close()


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


def test_missing_packages_are_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BuildError, match="the onnxruntime backend: expected the packages onnx and onnxruntime"):
        Opener(bundle, Request(budget="small", backend="onnxruntime")).open()


class Device:
    """Only counts."""

    stream = 1

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.uploaded = 0
        self.closed = False

    def allocate(self, nbytes: int) -> int:
        address = ALIGNMENT * 1000 * (len(self.held) + 1) + sum(self.held.values()) // ALIGNMENT * ALIGNMENT
        self.held[address] = nbytes
        return address

    def upload_blocks(self, address: int, source: Any, blocks: Any) -> None:
        self.uploaded += sum(block.width * block.height for block in blocks)

    def free(self, address: int) -> None:
        del self.held[address]

    def zero(self, address: int, nbytes: int) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Executor:
    def set_shape(self, name: str, shape: Any) -> None:
        pass

    def set_address(self, name: str, address: int) -> None:
        pass


@pytest.fixture
def card(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A machine with a card of the engines' class, except for the card."""
    device, asked = Device(), list[dict[str, Any]]()

    class Engine:
        scratch = 5

        def __init__(self, trt: Any, entry: Any, path: Path, device: Any, **rest: Any) -> None:
            asked.append({"entry": entry, "path": path, **rest})
            self._entry = entry

        def tensors(self) -> set[str]:
            budget = next(b for b in bundle.budgets if self._entry in b.engines)
            names = {port.name for port in self._entry.inputs} | {port.name for port in self._entry.outputs}
            return names | {item.name for item in bundle.recipe(budget).inputs}

        def check_aliases(self) -> None:
            pass

        def executors(self) -> tuple[Executor, Executor]:
            return Executor(), Executor()

        def close(self) -> None:
            asked.append({})

    monkeypatch.setattr(opening, "find_card", lambda: CARD)
    monkeypatch.setattr(opening, "card", lambda: CARD)
    monkeypatch.setattr(engine_opening, "CudaDevice", lambda: device)
    monkeypatch.setattr(engine_opening, "installed_version", lambda: bundle.budgets[0].engines[0].version)
    monkeypatch.setattr(engine_opening, "load_tensorrt", lambda: "trt")
    monkeypatch.setattr(trt_engine, "TrtEngine", Engine)
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path))
    return device, asked


def test_with_a_card_the_engine_is_opened_with_its_weights(bundle: Bundle, card: Any, tmp_path: Path) -> None:
    device, asked = card
    said: list[str] = []
    opener = Opener(bundle, Request(batch=2), say=said.append)
    session = opener.open()
    budget = bundle.budget("large")
    assert session.backend.name == "tensorrt-rtx"
    assert session.backend.memory()["scratch"] == 5
    assert device.uploaded == bundle.recipe(budget).nbytes
    assert asked[0]["path"] == bundle.path / "large/rtx5080.engine"
    digest = next(entry.sha256 for entry in bundle.manifest.files if entry.path == "large/rtx5080.engine")
    assert asked[0]["cache"] == tmp_path / "kernels" / f"{digest[:16]}-GeForce-RTX-5080.cache"
    assert said == [f"large/rtx5080.engine was built and has not been run on a card yet: {said[0].split(': ', 1)[1]}"]
    session.close()
    assert (asked[-1], device.held, device.closed) == ({}, {}, True)


def test_what_an_engine_cannot_do_is_said_before_it_loads(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, asked = card
    with pytest.raises(UnavailableError, match="found no engine for this: the largest has 2048 tokens x 2"):
        Opener(bundle, Request(budget="small", context=4096)).open()
    monkeypatch.setattr(engine_opening, "installed_version", lambda: "1.6.0")
    with pytest.raises(UnavailableError, match=r"expected tensorrt-rtx 1\.7\.1, found tensorrt-rtx 1\.6\.0"):
        Opener(bundle, Request(budget="small")).open()
    assert asked == []


def test_a_failure_while_loading_gives_the_device_back(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, _ = card
    monkeypatch.setattr(
        engine_opening, "check_bindings", lambda *_: (_ for _ in ()).throw(BuildError("x", expected="", found=""))
    )
    with pytest.raises(BuildError):
        Opener(bundle, Request(budget="small")).open()
    assert device.closed
