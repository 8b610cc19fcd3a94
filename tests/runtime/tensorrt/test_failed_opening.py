"""An engine that fails while it opens, whichever call it is: nothing of it is left when the error is heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from traceback import walk_tb
from typing import Any

import pytest

from counting_card import CARD, Device
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError
from elastic_runtime.session_request import Request
from elastic_runtime.tensorrt import open_tensorrt as engine_opening
from rtx_stand_in import tensors_of


@dataclass
class Fuse:
    """Counts calls; from call `at` on, or that one alone, they raise what `error` makes of a name."""

    error: Callable[[str], BaseException]
    at: int = 0
    stays: bool = False
    names: list[str] = field(default_factory=list)

    def __call__(self, name: str) -> None:
        self.names.append(name)
        calls = len(self.names)
        if calls == self.at or (self.stays and 0 < self.at < calls):
            raise self.error(name)

    def places(self) -> dict[int, str]:
        """The first, the second and the last call of every name."""
        found: dict[str, list[int]] = {}
        for number, name in enumerate(self.names, 1):
            found.setdefault(name, []).append(number)
        return {at: name for name, numbers in found.items() for at in (*numbers[:2], numbers[-1])}


def _of_the_card(name: str) -> BaseException:
    if "." in name:
        return RuntimeError(f"{name} failed")  # as the bindings raise
    return BuildError("card 0", expected=f"{name} to succeed", found="an error")


def _interrupt(name: str) -> BaseException:
    return KeyboardInterrupt(name)


@pytest.fixture
def open_with(
    trt: Any, demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Fuse], tuple[Any, Device]]:
    """Opens the demo's small engine on stand-ins of the bindings and of the card, whose calls go through a fuse."""
    bundle = Bundle.open(demo_bundle)
    budget = bundle.budget("small")
    [engine] = budget.engines
    tensors = tensors_of(bundle, budget, engine)
    monkeypatch.setattr(engine_opening, "check_runs", lambda *_: engine_opening.PluginSource())
    monkeypatch.setattr(engine_opening, "load_tensorrt", lambda: trt)
    request = Request(cache_folder=tmp_path)

    def opened(fuse: Fuse) -> tuple[Any, Device]:
        device = Device(fuse)
        device.closed = True  # until it is opened

        def open_device() -> Device:
            device.closed = False
            return device

        trt.WORLD.reset()
        trt.WORLD.tensors, trt.WORLD.on_call = tensors, fuse
        monkeypatch.setattr(engine_opening, "CudaDevice", open_device)
        held: list[Any] = []
        try:
            held.append(engine_opening.open_engine(bundle, budget, engine, request, CARD, say=lambda _: fuse("say")))
        except BaseException as error:
            held.append(error)
        return held[0], device

    return opened


@pytest.mark.parametrize(
    ("error", "stays"),
    [(_of_the_card, False), (_of_the_card, True), (_interrupt, False)],
    ids=["an error", "a lost card", "an interrupt"],
)
def test_whichever_call_fails_nothing_is_left(
    trt: Any, open_with: Callable[[Fuse], tuple[Any, Device]], error: Callable[[str], BaseException], stays: bool
) -> None:
    """While the error is held, as by whoever prints it: its frames keep nothing, and the device is closed."""
    whole = Fuse(error)
    backend, device = open_with(whole)
    places = whole.places()
    backend.close()
    for at, name in places.items():
        fuse = Fuse(error, at, stays)
        raised, device = open_with(fuse)
        if not isinstance(raised, BaseException):  # what may fail, such as a cache
            fuse.at = 0
            raised.close()
        else:
            assert isinstance(raised, (BuildError, KeyboardInterrupt)), raised
        left = {name: count for name, count in trt.WORLD.living.items() if count}
        assert (at, name, left) == (at, name, {}), raised
        assert (at, name, device.held, device.buffers, device.closed) == (at, name, {}, 0, True), raised
        assert trt.WORLD.broken == []
    assert {
        "say",
        "allocate",
        "host_buffer",
        "upload_blocks",
        "zero",
        "synchronize",
        "Runtime.get_engine_validity",
        "Runtime.deserialize_cuda_engine",
        "IRuntimeConfig.create_runtime_cache",
        "IRuntimeConfig.set_runtime_cache",
        "ICudaEngine.create_execution_context",
        "IExecutionContext.set_device_memory",
        "IExecutionContext.set_optimization_profile_async",
        "IExecutionContext.set_tensor_address",
        "IExecutionContext.set_input_shape",
    } <= set(places.values())


def test_what_the_program_was_handling_keeps_its_frames(open_with: Callable[[Fuse], tuple[Any, Device]]) -> None:
    """They are not of the opening, and somebody may look at them yet."""

    def of_the_program(known: str) -> None:
        raise LookupError(known)

    def locals_after_an_opening() -> dict[str, Any]:
        try:
            of_the_program("a local")
        except LookupError as error:
            raised, _ = open_with(Fuse(_of_the_card, 3))
            assert isinstance(raised, BuildError)
            [*_, (frame, _)] = walk_tb(error.__traceback__)
            return dict(frame.f_locals)
        raise AssertionError

    assert locals_after_an_opening() == {"known": "a local"}
