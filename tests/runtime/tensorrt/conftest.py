"""What the tests of engines share: the recording stand-in of the bindings, watched over; a backend on sums of ids."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_runtime.driver.device import Arena
from elastic_runtime.errors import UnavailableError
from elastic_runtime.format.manifest import OutputPort
from elastic_runtime.tensorrt.backend_tensorrt import EngineBackend, Executors
from elastic_runtime.tensorrt.trt_engine import TrtEngine
from rtx_stand_in import load_stand_in
from sum_engine import MemoryDevice, SumRig, V, sum_engines, sum_entry

ADDRESS = 4096


@pytest.fixture
def trt() -> Iterator[Any]:
    """The module; no rule of its interface may have been broken, and nothing of it may outlive the test."""
    module = load_stand_in()
    gc.collect()
    gc.freeze()  # what other tests left to live: the collections of this one need not look through it
    module.WORLD.reset()
    yield module
    gc.collect()
    assert module.WORLD.broken == []
    assert {name: count for name, count in module.WORLD.living.items() if count} == {}


@dataclass
class Memory:
    """A device that writes its frees into the stand-in's events, to be seen among the ends of objects."""

    events: list[tuple[str, tuple[Any, ...]]]
    held: list[int] = field(default_factory=list)
    stream: int = 5
    room: bool = True

    def allocate(self, nbytes: int) -> int:
        if not self.room:
            raise UnavailableError("card 0", expected="cuMemAlloc_v2 to succeed", found="no room")
        self.held.append(ADDRESS)
        return ADDRESS

    def free(self, address: int) -> None:
        self.events.append(("scratch freed", ()))
        self.held.remove(address)

    def synchronize(self) -> None:
        pass


class Entry:
    file = "x.engine"
    outputs = (OutputPort("key_cache_out.0", "float32", ("B",), "key_cache.0", "must"),)
    logits = OutputPort("logits", "float32", ("B", 16), None, None)


@dataclass
class Rig:
    engine: TrtEngine
    memory: Memory
    said: list[str]


@pytest.fixture
def opened(trt: Any, tmp_path: Path) -> Callable[..., Rig]:
    """An engine with a cache file; the stand-in is told what to be before it is called."""
    trt.WORLD.tensors = [
        trt.Tensor("a", True, (-1,)),
        trt.Tensor("key_cache.0", True, (-1,)),
        trt.Tensor("key_cache_out.0", False, (-1,), aliased="key_cache.0"),
    ]

    def make(plugin: Path | None = None, host_code: bool = False, kept: bool = True, room: bool = True) -> Rig:
        memory, said = Memory(trt.WORLD.events, room=room), list[str]()
        cache = tmp_path / "cache" / "kernels" if kept else None
        plugins: Any = {"plugin": plugin, "host_code": host_code}
        engine = TrtEngine(trt, Entry, b"engine" * 20, memory, **plugins, cache=cache, say=said.append)  # type: ignore[arg-type]
        return Rig(engine, memory, said)

    return make


@pytest.fixture(params=["must", "must_not"])
def alias(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def replays() -> bool:
    """Whether TensorRT records decode steps itself."""
    return False


@pytest.fixture
def rig(alias: str, replays: bool) -> Iterator[SumRig]:
    device, entry, closed, said = MemoryDevice(), sum_entry(alias), list[str](), list[str]()
    first, second, prefill = sum_engines(device, entry)
    weights = Arena(device, {"w": 4})
    device.upload(weights.addresses["w"], np.array([5], np.int32))
    backend = EngineBackend(
        entry,
        device,
        Executors((first, second), prefill, replays),
        weights,
        batch=3,
        vocab_size=V,
        scratch=9,
        on_close=lambda: closed.append("x"),
        say=said.append,
    )
    yield SumRig(device, (first, second), prefill, backend, closed, said)
    if not device.closed:
        backend.close()
    assert (device.blocks, device.host) == ({}, 0), "memory was not given back"
