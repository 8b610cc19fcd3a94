"""Opening an engine: which serves, what is checked before it loads, and what is given back when that fails."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from counting_card import CARD, GIB
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver import free_memory
from elastic_runtime.errors import BuildError, InputError, UnavailableError
from elastic_runtime.fit.vram import vram_needed
from elastic_runtime.format.manifest import Status
from elastic_runtime.opening import LostError, Opener, places
from elastic_runtime.session_request import Request
from elastic_runtime.tensorrt import open_tensorrt as engine_opening
from elastic_runtime.tensorrt import trt_engine
from elastic_runtime.tensorrt.engine_cache import cache_folder, remember


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


def test_an_engine_of_other_tensors_is_refused_before_weights_are_loaded(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, _ = card
    names = trt_engine.TrtEngine.tensors
    monkeypatch.setattr(trt_engine.TrtEngine, "tensors", lambda self: names(self) | {"scales"})
    with pytest.raises(BuildError, match=r"found differing \['scales'\]. Export the bundle again"):
        Opener(bundle, Request(budget="large")).open()
    assert (device.uploaded, device.held, device.closed) == (0, {}, True)


@pytest.mark.parametrize("check", ["check_locations", "check_logits", "check_aliases"])
def test_what_an_engine_says_is_checked_before_weights_are_loaded(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    def refuse(engine: Any) -> None:
        raise BuildError("x.engine", expected="one", found="another")

    device, _ = card
    monkeypatch.setattr(trt_engine.TrtEngine, check, refuse)
    with pytest.raises(BuildError, match=r"x\.engine: expected one, found another\."):
        Opener(bundle, Request(budget="large")).open()
    assert (device.uploaded, device.held, device.closed) == (0, {}, True)


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


@pytest.mark.parametrize("full", ["states", "weights"])
def test_an_engine_that_finds_no_room_on_the_card_makes_way_for_the_next(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    """Others may take memory after it was reckoned; what is free is asked again before the next one is tried."""
    device, asked = card
    budgets = {name: bundle.budget(name) for name in ("large", "small")}
    small = budgets["small"]
    needs = vram_needed(small.size(small.engines[0]), context=small.engines[0].max_context).total
    allocate, room = device.allocate, {"states": bundle.recipe(budgets["large"]).nbytes, "weights": 0}[full]

    def within(nbytes: int) -> int:
        if len(asked) == 1 and sum(device.held.values()) + nbytes > room:  # of the first engine
            monkeypatch.setattr(places, "find_card", lambda: replace(CARD, free=needs))
            raise UnavailableError("card 0", expected="cuMemAlloc_v2 to succeed", found="CUDA_ERROR_OUT_OF_MEMORY (2)")
        return int(allocate(nbytes))

    monkeypatch.setattr(device, "allocate", within)
    opener = Opener(bundle, Request())
    session = opener.open()
    assert opener.budget == small
    assert [loaded["data"] for loaded in asked if loaded] == [
        (bundle.path / b.engines[0].file).read_bytes() for b in budgets.values()
    ]
    session.close()
    assert (device.held, device.closed) == ({}, True)


def test_what_an_engine_without_room_held_is_free_before_the_next_is_reckoned(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error comes from a frame that holds the engine and its file, which may be as large as the model."""
    full = list[weakref.ref[Any]]()

    class Engine(trt_engine.TrtEngine):
        def __init__(self, *arguments: Any, **rest: Any) -> None:
            super().__init__(*arguments, **rest)
            if not full:
                full.append(weakref.ref(self))
                raise UnavailableError("card 0", expected="cuMemAlloc_v2 to succeed", found="no room")

    monkeypatch.setattr(trt_engine, "TrtEngine", Engine)
    monkeypatch.setattr(
        places, "find_card", lambda: CARD if not full or full[0]() is None else replace(CARD, free=GIB >> 2)
    )
    opener = Opener(bundle, Request())
    opener.open().close()
    assert opener.budget == bundle.budget("medium")


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
