"""Opening an engine: which serves, what is checked before it loads, and what is given back when that fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_runtime.bundle import Bundle
from elastic_runtime.driver import free_memory
from elastic_runtime.driver.device import ALIGNMENT
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import BuildError, InputError, UnavailableError
from elastic_runtime.fit.vram import vram_needed
from elastic_runtime.format.manifest import Status
from elastic_runtime.format.manifest_reader import DamageError
from elastic_runtime.opening import LostError, Opener, places
from elastic_runtime.session_request import Request
from elastic_runtime.tensorrt import open_tensorrt as engine_opening
from elastic_runtime.tensorrt import trt_engine
from elastic_runtime.tensorrt.backend_tensorrt import Executors
from elastic_runtime.tensorrt.engine_cache import cache_folder, remember
from plugin_libraries_folder import library_bytes

GIB = 1 << 30
CARD = Card("GeForce RTX 5080", "12.0", 16 * GIB, 15 * GIB)


@pytest.fixture
def bundle(demo_bundle: Path) -> Bundle:
    return Bundle.open(demo_bundle)


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

    def finish_uploads(self) -> None:
        pass

    def host_buffer(self, nbytes: int) -> Any:
        return np.zeros(nbytes, np.uint8)

    def free_host_buffer(self, buffer: Any) -> None:
        pass

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

        def __init__(self, trt: Any, entry: Any, data: bytes, device: Any, **rest: Any) -> None:
            asked.append({"entry": entry, "data": data, **rest})
            self._entry = entry

        def tensors(self) -> set[str]:
            budget = next(b for b in bundle.budgets if self._entry.file in [e.file for e in b.engines])
            names = {port.name for port in self._entry.inputs} | {port.name for port in self._entry.outputs}
            return names | {item.name for item in bundle.recipe(budget).inputs}

        def check_locations(self) -> None:
            pass

        def check_aliases(self) -> None:
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


def test_with_a_card_the_engine_is_opened_with_its_weights(bundle: Bundle, card: Any, tmp_path: Path) -> None:
    device, asked = card
    said: list[str] = []
    opener = Opener(bundle, Request(batch=2), say=said.append)
    session = opener.open()
    budget = bundle.budget("large")
    assert session.backend.name == "tensorrt-rtx"
    assert session.backend.memory()["scratch"] == 5
    assert device.uploaded == bundle.recipe(budget).nbytes
    assert asked[0]["data"] == (bundle.path / "large/rtx5080.engine").read_bytes()
    digest = next(entry.sha256 for entry in bundle.manifest.files if entry.path == "large/rtx5080.engine")
    assert asked[0]["cache"] == tmp_path / "kernels" / f"{digest[:16]}-GeForce-RTX-5080.cache"
    assert said == [f"large/rtx5080.engine was built and has not been run on a card yet: {said[0].split(': ', 1)[1]}"]
    session.close()
    assert (asked[-1], device.held, device.closed) == ({}, {}, True)


def _two_contexts(bundle: Bundle) -> Bundle:
    """Each budget with an engine of 512 and one of 2048 tokens."""
    budgets = tuple(
        replace(b, engines=tuple(replace(e, max_context=c) for e in b.engines for c in (512, 2048)))
        for b in bundle.manifest.budgets
    )
    return replace(bundle, manifest=replace(bundle.manifest, budgets=budgets))


def test_the_context_of_a_card_follows_one_rule(bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for: the smallest engine that suffices. Not asked for: the largest that fits the memory."""
    two = _two_contexts(bundle)

    def context(**request: Any) -> int:
        with Opener(two, Request(budget="small", **request)).open() as session:
            return session.backend.max_context

    assert context() == 2048
    assert (context(context=100), context(context=513)) == (512, 2048)
    budget = two.budget("small")
    needs = [vram_needed(budget.size(e), context=e.max_context).total for e in budget.engines]
    assert context(vram=needs[1] - 1) == 512
    monkeypatch.setattr(places, "find_card", lambda: replace(CARD, free=needs[1] - 1))
    assert context() == 512
    assert Opener(two, Request(budget="small")).explain().startswith("15.0 GiB, 1 tokens or more x 1:")


def test_memory_that_is_named_bounds_a_named_budget_on_an_engine(bundle: Bundle, card: Any) -> None:
    device, asked = card
    budget = bundle.budget("small")
    need = vram_needed(budget.size(budget.engines[0]), context=budget.engines[0].max_context)
    Opener(bundle, Request(budget="small", vram=need.total)).open().close()
    del asked[:]
    with pytest.raises(UnavailableError) as caught:
        Opener(bundle, Request(budget="small", vram=need.total - 1, backend="tensorrt-rtx")).open()
    assert str(caught.value) == (
        f"budget 'small' on GeForce RTX 5080: expected 0.6 GiB of memory to take ({need.text()}), found 0.6 GiB, of "
        "0.6 named and 15.0 free. Name more memory, or take a smaller budget or an engine of a smaller context."
    )
    assert asked == []
    opener = Opener(bundle, Request(budget="small", vram=need.total))
    session = opener.open()
    with pytest.raises(UnavailableError, match=r"budget 'large' on GeForce RTX 5080: expected 0\.6 GiB of memory to t"):
        opener.switch(session, "large")
    assert device.held  # the old session was not closed
    session.close()


def test_more_memory_than_is_free_may_be_named_and_none_of_it_is_taken_for_free(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = [r.need.total for r in bundle.choose(vram=GIB, context=1).reckonings if r.need]
    monkeypatch.setattr(places, "find_card", lambda: replace(CARD, free=need[1]))
    opener = Opener(bundle, Request(vram=15 * GIB))
    opener.open().close()
    assert opener.budget == bundle.budget("medium")


def test_an_engine_without_a_card_is_refused_and_naming_memory_is_no_way_out(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_memory, "_LIBRARIES", ("libno-such-ml.so.1",))
    for vram in (None, 12 * GIB):
        with pytest.raises(UnavailableError) as caught:
            Opener(bundle, Request(backend="tensorrt-rtx", vram=vram)).open()
        assert str(caught.value) == (
            "the backend tensorrt-rtx: expected an NVIDIA driver that says how much is free, found no "
            "libno-such-ml.so.1. Look at the driver and CUDA_VISIBLE_DEVICES, or take the backend onnxruntime."
        )
        assert caught.value.exit_code == 1


def test_a_session_that_does_not_close_is_lost_where_the_card_is(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, _ = card
    opener = Opener(bundle, Request(budget="small"))
    session = opener.open()

    def broken(*_: object) -> None:
        raise BuildError("card 0", expected="cuStreamSynchronize to succeed", found="CUDA_ERROR_ILLEGAL_ADDRESS (700)")

    monkeypatch.setattr(device, "synchronize", broken)
    monkeypatch.setattr(device, "allocate", broken)
    with pytest.raises(LostError) as caught:
        opener.switch(session, "medium")
    assert "expected budget 'small' to open again, found card 0: expected cuStreamSync" in str(caught.value)
    assert "the switch failed of: card 0: expected cuStreamSync" in str(caught.value)
    assert (device.held, device.closed) == ({}, True)


def test_a_switch_on_a_card_reckons_with_what_the_old_session_gives_back(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = _two_contexts(bundle)
    opener = Opener(two, Request(budget="small", context=100))
    session = opener.open()
    session.tokens[0] = [1] * 600
    need = vram_needed(two.budget("medium").size(two.budget("medium").engines[0]), context=2048).total
    held = sum(session.backend.memory().values())
    backend = session.backend
    monkeypatch.setattr(places, "find_card", lambda: replace(CARD, free=need - held - 1))
    with pytest.raises(UnavailableError, match="budget 'medium' on GeForce RTX 5080: expected 0"):
        opener.switch(session, "medium")
    assert session.backend is backend
    monkeypatch.setattr(places, "find_card", lambda: replace(CARD, free=need - held))
    opener._candidates.check(two.budget("medium"), places.find_card(), held=held, rows=1, at_least=601)
    session.tokens[0] = [1] * 2048
    with pytest.raises(UnavailableError, match="found no engine for this: the largest has 2048 tokens"):
        opener.switch(session, "medium")
    session.close()


def test_an_engine_that_was_verified_here_is_opened_without_a_warning(
    bundle: Bundle, card: Any, tmp_path: Path
) -> None:
    said: list[str] = []
    engine = bundle.budget("small").engines[0]
    remember(cache_folder(None), bundle.manifest, engine, Status("verified", CARD.name, "2026-01-31"))
    Opener(bundle, Request(budget="small"), say=said.append).open().close()
    assert said == []


def test_no_memory_is_not_taken_for_memory_that_was_not_named(bundle: Bundle, card: Any) -> None:
    opener, small = Opener(bundle, Request(vram=0)), bundle.budget("small")
    uses: list[Callable[[], object]] = [
        opener.open,
        opener.explain,
        lambda: opener._candidates.choice(CARD),  # each refuses by itself: one behind the other would hide its fault
        lambda: engine_opening.select_engine(small, opener.request, CARD),
    ]
    for use in uses:
        with pytest.raises(InputError, match="vram: expected at least 1, found 0"):
            use()


def test_what_an_engine_cannot_do_is_said_before_it_loads(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, asked = card
    with pytest.raises(UnavailableError, match="found no engine for this: the largest has 2048 tokens x 2"):
        Opener(bundle, Request(budget="small", context=4096, backend="tensorrt-rtx")).open()
    monkeypatch.setattr(engine_opening, "installed_version", lambda: "1.6.0")
    with pytest.raises(UnavailableError, match=r"expected tensorrt-rtx 1\.7\.1, found tensorrt-rtx 1\.6\.0"):
        Opener(bundle, Request(budget="small", backend="tensorrt-rtx")).open()
    assert asked == []


def test_a_failure_while_loading_gives_the_device_back(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, asked = card
    monkeypatch.setattr(
        engine_opening, "check_bindings", lambda *_: (_ for _ in ()).throw(BuildError("x", expected="", found=""))
    )
    with pytest.raises(BuildError):
        Opener(bundle, Request(budget="small")).open()
    assert (device.closed, device.held) == (True, {})
    assert asked[-1] == {}  # the engine was closed too


def test_a_package_that_does_not_load_leaves_no_device_open(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise UnavailableError("the package tensorrt-rtx", expected="it to load", found="OSError")

    made: list[int] = []
    monkeypatch.setattr(engine_opening, "load_tensorrt", fails)
    monkeypatch.setattr(engine_opening, "CudaDevice", lambda: made.append(1))
    with pytest.raises(UnavailableError, match="expected it to load"):
        Opener(bundle, Request(budget="small", backend="tensorrt-rtx")).open()
    assert made == []


def test_tensorrt_gets_the_bytes_that_were_looked_into(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever swaps the file after the look has his code run by nobody."""
    _, asked = card
    moved = replace(bundle, path=tmp_path / "moved")
    shutil.copytree(bundle.path, moved.path)
    file = moved.path / "small/rtx5080.engine"
    checked = file.read_bytes()

    def load() -> str:
        file.write_bytes(b"vtrt" + library_bytes("swapped"))
        return "trt"

    monkeypatch.setattr(engine_opening, "load_tensorrt", load)
    Opener(moved, Request(budget="small")).open().close()
    assert asked[0]["data"] == checked
    with pytest.raises(DamageError, match="expected no code for the host in it"):
        Opener(moved, Request(budget="small")).open()


def test_a_card_of_another_class_is_sent_for_an_engine_and_not_for_a_smaller_context(bundle: Bundle, card: Any) -> None:
    with pytest.raises(UnavailableError) as caught:
        engine_opening.select_engine(bundle.budget("small"), Request(), replace(CARD, compute_capability="8.9"))
    assert str(caught.value) == (
        "budget 'small': expected an engine for GeForce RTX 5080, found no engine for compute capability 8.9. "
        "Export for this card with --target, or take the backend onnxruntime."
    )


def test_where_kernels_cannot_be_kept_it_is_said_and_the_engine_runs(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, asked = card
    said: list[str] = []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "file"))
    Opener(bundle, Request(budget="small"), say=said.append).open().close()
    assert asked[0]["cache"] is None
    assert said[1].startswith(f"warning: {tmp_path / 'file' / 'kernels'}: compiled kernels cannot be kept there (Not a")
