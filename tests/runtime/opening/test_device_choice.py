"""The device: when onnxruntime takes the card, when the CPU and what is said of it, what an unmet wish says."""

from __future__ import annotations

import importlib.abc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from card_memory import apart
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import ElasticError, InputError, NoCudaError, UnavailableError
from elastic_runtime.opening import Opener, candidates, loading, places
from elastic_runtime.ort import onnx_memory
from elastic_runtime.ort.open_onnx import OnnxCard, card_needed, plan_card, ram_needed
from elastic_runtime.session_request import Request

GIB = 1 << 30
H200 = Card("H200", "9.0", 141 * GIB, 100 * GIB)  # no engine of the demo's is for it
RTX = Card("GeForce RTX 5080", "12.0", 16 * GIB, 15 * GIB)
ON_CARD = "running on H200 with onnxruntime, in float32 arithmetic"


@pytest.fixture
def crossed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    with apart() as counts:
        yield counts
        monkeypatch.undo()  # what a test put over the stand-in goes first, or the stand-in would come back after it


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find_card", lambda: H200)


def _need(bundle: Bundle, name: str, context: int = 64, rows: int = 1) -> int:
    budget, precision = bundle.budget(name), bundle.manifest.precision
    recipe = bundle.recipe(budget) if budget.weights else None
    return card_needed(budget, recipe, context=context, batch=rows, precision=precision)


def _open(bundle: Bundle, **request: Any) -> tuple[str, str, list[str]]:
    """Device and budget of a session, and what was said."""
    said: list[str] = []
    opener = Opener(bundle, Request(threads=1, **({"context": 64} | request)), say=said.append)
    with opener.open() as session:
        assert session.backend.name == "onnxruntime"
        session.prefill([[1, 2, 3]] * session.batch)
        session.decode([4] * session.batch)
        assert opener.budget
        return session.backend.device, opener.budget.name, said


@pytest.mark.parametrize("request_", [{}, {"backend": "onnxruntime"}, {"device": "gpu"}])
def test_a_card_that_no_engine_is_for_runs_the_largest_twin(
    bundle: Bundle, crossed: Counter[str], request_: dict[str, Any]
) -> None:
    assert _open(bundle, **request_) == ("gpu", "large", [ON_CARD])


def test_the_card_gives_the_ids_of_the_cpu(bundle: Bundle, crossed: Counter[str]) -> None:
    logits = []
    for device in ("cpu", "gpu"):
        request = Request(budget="medium", backend="onnxruntime", device=device, context=64, threads=1)  # type: ignore[arg-type]
        with Opener(bundle, request).open() as session:
            session.prefill([[1, 2, 3]])
            logits.append(session.decode([4]).copy())
    np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize("card", [RTX, H200, None])
def test_the_cpu_is_taken_where_it_is_asked_for(
    bundle: Bundle, crossed: Counter[str], monkeypatch: pytest.MonkeyPatch, card: Card | None
) -> None:
    monkeypatch.setattr(places, "find_card", lambda: card)
    assert _open(bundle, device="cpu") == ("cpu", "large", [])
    assert _open(bundle, device="cpu", backend="onnxruntime") == ("cpu", "large", [])


def test_an_engine_is_never_the_cpus(bundle: Bundle) -> None:
    with pytest.raises(InputError) as caught:
        Opener(bundle, Request(backend="tensorrt-rtx", device="cpu")).open()
    assert str(caught.value) == (
        "device: expected auto or gpu for the backend tensorrt-rtx, found cpu. "
        "Take the backend onnxruntime for the CPU."
    )


def test_the_twin_must_fit_to_the_byte(bundle: Bundle, crossed: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    need = _need(bundle, "medium", rows=2)
    assert need < _need(bundle, "large", rows=2)
    monkeypatch.setattr(places, "find_card", lambda: replace(H200, free=need))
    assert _open(bundle, batch=2) == ("gpu", "medium", [ON_CARD])
    assert _open(bundle, budget="medium", batch=2)[0] == "gpu"
    monkeypatch.setattr(places, "find_card", lambda: replace(H200, free=need - 1))
    assert _open(bundle, batch=2)[:2] == ("gpu", "small")
    device, _, said = _open(bundle, budget="medium", batch=2, backend="onnxruntime")
    assert (device, said) == (
        "cpu",
        [
            "H200: running on the CPU with onnxruntime, in float32 arithmetic; on the card it expected 1.5 GiB of free "
            "memory for its float32 twin, found 1.5 GiB"
        ],
    )
    with pytest.raises(UnavailableError) as caught:
        _open(bundle, budget="medium", batch=2, device="gpu")
    assert str(caught.value) == (
        "budget 'medium' under onnxruntime on H200: expected 1.5 GiB of free memory for its float32 twin, "
        "found 1.5 GiB. Take a smaller budget or context, or run on the CPU (--device cpu)."
    )
    with pytest.raises(InputError, match="budget 'huge'"):
        _open(bundle, budget="huge")


@contextmanager
def room_for(nbytes: int) -> Iterator[None]:
    """While it lasts the card has room for so many bytes, of which nothing that is let go comes back."""
    import onnxruntime

    left, make = [nbytes], onnxruntime.OrtValue.ortvalue_from_shape_and_type

    def within(shape: Any, dtype: Any, *place: Any) -> Any:
        left[0] -= int(np.prod(shape)) * np.dtype(dtype).itemsize
        if left[0] < 0:
            raise RuntimeError("out of memory")
        return make(shape, dtype, *place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", within)
        yield


def test_states_without_room_make_way_for_the_cpu_as_weights_do(bundle: Bundle, crossed: Counter[str]) -> None:
    """Others may take memory after it was reckoned. Opening itself takes no more than its session holds."""
    request = Request(budget="small", context=64, batch=3, threads=1)

    def opened(request: Request) -> tuple[str, list[str], dict[str, int]]:
        said = list[str]()
        with Opener(bundle, request, say=said.append).open() as session:
            return session.backend.device, said, dict(session.backend.memory())

    *_, taken = opened(request)
    with room_for(sum(taken.values())):
        assert opened(request)[:2] == ("gpu", [ON_CARD])
    for room in (taken["weights on the card"], sum(taken.values()) - 1):
        with room_for(room):
            device, said, _ = opened(request)
        assert (device, len(said)) == ("cpu", 1)
        assert said[0].startswith(f"{FOREIGN}running on the CPU with onnxruntime, in float32 arithmetic; on the card ")
        assert said[0].endswith(" bytes more, found out of memory")
        with (
            room_for(room),
            pytest.raises(UnavailableError, match=r"^card 0: expected room for \d+ bytes more, found "),
        ):
            opened(replace(request, device="gpu"))


def test_memory_that_is_named_bounds_what_the_card_may_give(bundle: Bundle, crossed: Counter[str]) -> None:
    need = _need(bundle, "medium")
    assert _open(bundle, vram=need)[:2] == ("gpu", "medium")
    with pytest.raises(UnavailableError, match="budget 'small' under onnxruntime on H200"):
        _open(bundle, vram=GIB, device="gpu")


def test_the_reckoning_counts_wide_weights_states_and_caches(bundle: Bundle) -> None:
    budget = bundle.budget("small")
    recipe = bundle.recipe(budget)
    for context, rows in ((64, 1), (2000, 3)):
        ram = [
            ram_needed(budget, recipe, context=context, batch=rows, precision="bf16").float32,
            ram_needed(budget, recipe, context=64, batch=0, precision="bf16").float32,
        ]
        card = _need(bundle, "small", context, rows)
        assert card - (4 * budget.parameters + (3 << 29)) == ram[0] - ram[1]


def test_the_card_takes_the_largest_context_that_fits(bundle: Bundle) -> None:
    budget = bundle.budget("small")
    budget = replace(budget, engines=tuple(replace(budget.engines[0], max_context=c) for c in (512, 1 << 20)))
    need = _need(bundle, "small", 1 << 20)

    def context(free: int, **asked: Any) -> int:
        return plan_card(bundle, budget, OnnxCard(H200, free), **({"context": None, "rows": 1} | asked))

    assert (context(need), context(need - 1)) == (1 << 20, 512)
    assert context(need, context=77) == 77
    assert context(need, context=77, at_least=90) == 90


def _no_card(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(places, "find_card", lambda: None)


def _no_provider(patch: pytest.MonkeyPatch) -> None:
    def check(index: int = 0) -> None:
        raise NoCudaError("onnxruntime 1.31 without one")

    patch.setattr(onnx_memory, "check_cuda", check)


def _falls_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(onnx_memory, "CudaMemory", _Falling)


class _Falling(onnx_memory.CudaMemory):
    """Asks for the card and gets the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.providers = (("CUDAExecutionProvider", {}), ("CPUExecutionProvider", {}))


def _fallen_session(patch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession
    _falls_back(patch)
    patch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, **_: session(model, options, providers=["CPUExecutionProvider"]),
    )


FOREIGN = "H200 has compute capability 9.0, the engines are for 12.0: "


@pytest.mark.parametrize(
    ("breaks", "request_", "line", "reason"),
    [
        (_no_card, {}, "no NVIDIA card here: ", "no NVIDIA card"),
        (_no_provider, {}, FOREIGN, "onnxruntime 1.31 without one"),
        (_no_provider, {"backend": "onnxruntime"}, "H200: ", "onnxruntime 1.31 without one"),
        (_fallen_session, {}, FOREIGN, "a session that fell back to CPUExecutionProvider"),
        (
            lambda _: None,
            {"weights": "stored"},
            FOREIGN,
            "a wish for weights as stored, which is a form of the CPU",
        ),
    ],
)
def test_without_a_way_to_the_card_auto_says_why_and_gpu_fails(
    bundle: Bundle,
    crossed: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    breaks: Any,
    request_: dict[str, Any],
    line: str,
    reason: str,
) -> None:
    breaks(monkeypatch)
    device, budget, said = _open(bundle, **request_)
    assert (device, budget, len(said)) == ("cpu", "large", 1)
    assert said[0].startswith(f"{line}running on the CPU with onnxruntime, in float32 arithmetic")
    assert breaks is _no_card or said[0].endswith(f"found {reason}")
    with pytest.raises(NoCudaError, match=f"onnxruntime on a card: expected .* found {reason}") as caught:
        _open(bundle, **request_, device="gpu")
    assert caught.value.exit_code == 1


def test_a_missing_package_is_named_on_a_card_too(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "elastic_runtime.ort.onnx_memory", None)
    with pytest.raises(UnavailableError, match="the onnxruntime backend: expected the packages onnx and onnxruntime"):
        Opener(bundle, Request(device="gpu")).open()


def test_ctrl_c_while_packages_load_is_no_reason_for_the_cpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """pybind11 makes of it what a package that is missing is."""
    import sys

    class Interrupts(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            if name == "elastic_runtime.ort.onnx_memory":
                raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.delitem(sys.modules, "elastic_runtime.ort.onnx_memory", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    with pytest.raises(KeyboardInterrupt):
        Opener(bundle, Request(budget="small", context=64)).open()


def test_a_switch_stays_on_the_card_and_reckons_with_what_the_old_session_gives_back(
    bundle: Bundle, crossed: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime keeps the memory that its values took, so the driver never counts it as free again."""
    opener = Opener(bundle, Request(budget="small", device="gpu", context=64, threads=1))
    session = opener.open()
    session.prefill([[1, 2, 3]])
    held = sum(session.backend.memory().values())
    free = _need(bundle, "medium") - held
    monkeypatch.setattr(places, "find_card", lambda: replace(H200, free=free - 1))
    with pytest.raises(UnavailableError, match="budget 'medium' under onnxruntime on H200"):
        opener.switch(session, "medium")
    session.decode([1])
    monkeypatch.setattr(places, "find_card", lambda: replace(H200, free=free))
    session, _, _ = opener.switch(session, "medium")
    assert (session.backend.device, session.tokens) == ("gpu", [[1, 2, 3, 1]])
    session.close()


def test_memory_on_the_card_is_none_that_the_cpu_gets_back(
    bundle: Bundle, crossed: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = Opener(bundle, Request(budget="small", context=64, threads=1))
    session = opener.open()
    session.prefill([[1, 2, 3]])
    budget = bundle.budget("medium")
    need = ram_needed(budget, bundle.recipe(budget), context=64, batch=1, precision=bundle.manifest.precision)
    _no_card(monkeypatch)
    monkeypatch.setattr(candidates, "free_ram", lambda: need.stored - 1)
    with pytest.raises(UnavailableError, match="budget 'medium' on the CPU"):
        opener.switch(session, "medium")
    session.decode([1])  # the old one still lives
    monkeypatch.setattr(candidates, "free_ram", lambda: need.stored)
    session, _, _ = opener.switch(session, "medium")
    assert session.backend.device == "cpu"
    session.close()


def test_a_switch_that_fails_goes_back_to_the_card(
    bundle: Bundle, crossed: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = Opener(bundle, Request(budget="small", device="gpu", context=64, threads=1))
    session = opener.open()
    session.prefill([[1, 2, 3]])
    opened = loading.open_onnx

    def failing(bundle: Bundle, budget: Any, **rest: Any) -> Any:
        if budget.name == "large":
            monkeypatch.setattr(places, "find_card", lambda: replace(H200, free=0))  # as the driver counts then
            raise ElasticError("large", expected="luck", found="none")
        return opened(bundle, budget, **rest)

    monkeypatch.setattr(loading, "open_onnx", failing)
    with pytest.raises(ElasticError, match="large: expected luck"):
        opener.switch(session, "large")
    assert (session.backend.device, session.tokens) == ("gpu", [[1, 2, 3]])
    session.close()
