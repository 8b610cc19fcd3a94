"""An engine on the recording stand-in of the bindings: what is asked of TensorRT, in which order, and what outlives it.

Which names the bindings have is test_stand_in.py's to show.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from elastic_runtime.errors import BuildError, UnavailableError
from elastic_runtime.format.manifest import OutputPort
from elastic_runtime.tensorrt import trt_engine
from elastic_runtime.tensorrt.trt_engine import TrtEngine

ADDRESS = 4096


@dataclass
class Memory:
    """A device that writes its frees into the stand-in's events, to be seen among the ends of objects."""

    events: list[tuple[str, tuple[Any, ...]]]
    held: list[int] = field(default_factory=list)
    stream: int = 5

    def allocate(self, nbytes: int) -> int:
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

    def make(plugin: Path | None = None, host_code: bool = False, kept: bool = True) -> Rig:
        memory, said = Memory(trt.WORLD.events), list[str]()
        cache = tmp_path / "cache" / "kernels" if kept else None
        plugins: Any = {"plugin": plugin, "host_code": host_code}
        engine = TrtEngine(trt, Entry, b"engine" * 20, memory, **plugins, cache=cache, say=said.append)  # type: ignore[arg-type]
        return Rig(engine, memory, said)

    return make


@pytest.mark.parametrize("carries", [False, True])
def test_host_code_is_allowed_for_an_engine_that_carries_its_library_alone(
    trt: Any, opened: Callable[..., Rig], carries: bool
) -> None:
    opened(host_code=carries)
    names = trt.WORLD.names()
    assert names.index("Runtime.engine_host_code_allowed") < names.index("Runtime.deserialize_cuda_engine")
    assert trt.WORLD.calls("Runtime.engine_host_code_allowed") == [(carries,)]


def test_contexts_share_scratch_and_have_a_profile_each(trt: Any, opened: Callable[..., Rig]) -> None:
    rig = opened()
    rig.engine.executors()
    world = trt.WORLD
    assert set(world.calls("IExecutionContext.set_device_memory")) == {(ADDRESS, 1000)}
    assert sorted(set(world.calls("IExecutionContext.set_optimization_profile_async"))) == [(0, 5), (1, 5)]
    strategies = set(world.calls("IRuntimeConfig.set_execution_context_allocation_strategy"))
    assert strategies == {(trt.ExecutionContextAllocationStrategy.USER_MANAGED,)}
    names = world.names()
    assert names.index("IRuntimeConfig.set_runtime_cache") < names.index("ICudaEngine.create_execution_context")
    assert rig.engine.tensors() == {"a", "key_cache.0", "key_cache_out.0"}
    assert (rig.engine.scratch, rig.memory.held) == (1000, [ADDRESS])
    rig.engine.close()
    assert rig.memory.held == []


def test_contexts_end_first_then_scratch_and_what_they_were_made_from(trt: Any, opened: Callable[..., Rig]) -> None:
    """Whoever holds an executor still, as a backend does: NVIDIA's cache must outlive every context of its config."""
    rig = opened()
    executors = rig.engine.executors()
    rig.engine.close()
    ended = [name for name in trt.WORLD.names() if name.endswith((" ended", " freed"))]
    contexts = ended.count("IExecutionContext ended")
    assert contexts >= 2
    assert ended[:contexts] == ["IExecutionContext ended"] * contexts
    assert ended.index("scratch freed") == contexts
    assert ended.index("ICudaEngine ended") < ended.index("Runtime ended")
    assert {"IRuntimeCache ended", "IRuntimeConfig ended"} < set(ended)
    assert executors


def test_tensorrt_records_decode_and_compiles_its_kernels_first(trt: Any, opened: Callable[..., Rig]) -> None:
    """A step that is recorded keeps the kernels of that moment, so those made for the shape have to be there."""
    rig = opened()
    executors = rig.engine.executors()
    eager, whole = trt.DynamicShapesKernelSpecializationStrategy.EAGER, trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    strategies = [(e._context._profile, e._context._kernels, e._context._graphs) for e in executors.all()]
    assert strategies[:2] == [(0, eager, whole)] * 2
    lazy, disabled = trt.DynamicShapesKernelSpecializationStrategy.LAZY, trt.CudaGraphStrategy.DISABLED
    assert strategies[2] == (1, lazy, disabled)
    assert executors.replays
    rig.engine.close()


@pytest.mark.parametrize("how", ["raises", "answers"])
def test_where_tensorrt_records_nothing_the_backend_is_told(trt: Any, opened: Callable[..., Rig], how: str) -> None:
    no = {"raises": RuntimeError("no"), "answers": trt.CudaGraphStrategy.DISABLED}[how]
    getattr(trt.WORLD, how)["IRuntimeConfig.cuda_graph_strategy"] = no
    rig = opened()
    assert not rig.engine.executors().replays
    rig.engine.close()


def test_the_kernel_cache_is_written_and_read_again(trt: Any, opened: Callable[..., Rig], tmp_path: Path) -> None:
    opened().engine.close()
    assert trt.WORLD.calls("IRuntimeCache.deserialize") == []
    assert (tmp_path / "cache" / "kernels").read_bytes() == b"kernels"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["kernels"]
    opened().engine.close()
    assert trt.WORLD.calls("IRuntimeCache.deserialize") == [(b"kernels",)]


def test_that_kernels_are_compiled_is_said_before_and_while_it_lasts(
    trt: Any, opened: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = opened()
    compiling = "compiling the kernels of x.engine for this card, once: up to half a minute"
    assert rig.said == [compiling]
    clock = iter((0.0, 0.5, 7.6, 11.0))
    monkeypatch.setattr(trt_engine.time, "monotonic", lambda: next(clock))
    rig.engine.executors()
    assert rig.said[1:] == [
        "kernels: 2 of 3 contexts ready after 8 s",
        "kernels: 3 of 3 contexts ready after 11 s",
    ]
    rig.engine.close()
    warm = opened()
    assert warm.said == []
    warm.engine.close()
    nowhere = opened(kept=False)
    assert nowhere.said == ["compiling the kernels of x.engine for this card: up to half a minute"]
    nowhere.engine.close()
    trt.WORLD.answers = {"IRuntimeCache.deserialize": False}  # of another driver
    other = opened()
    assert other.said == [compiling]
    other.engine.close()


def test_what_fails_while_it_closes_keeps_nothing_else(
    trt: Any, opened: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a card whose every call fails after an error that CUDA keeps."""
    rig = opened()
    rig.engine.executors()
    free = rig.memory.free

    def failing(*given: int) -> bytes:
        if given:
            free(*given)
        raise BuildError("card 0", expected="luck", found="none")

    monkeypatch.setattr(rig.engine, "save_cache", failing)
    monkeypatch.setattr(rig.memory, "free", failing)
    with pytest.raises(BuildError, match="luck"):
        rig.engine.close()
    assert rig.memory.held == []
    gc.collect()
    assert not any(trt.WORLD.living.values())


def test_a_cache_that_cannot_be_kept_or_read_is_no_error(trt: Any, opened: Callable[..., Rig], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    opened().engine.close()
    (tmp_path / "cache").unlink()
    trt.WORLD.answers = {"IRuntimeCache.serialize": None}
    opened().engine.close()
    trt.WORLD.answers = {}
    trt.WORLD.raises = {"IRuntimeCache.serialize": RuntimeError("no memory")}
    opened().engine.close()
    assert not (tmp_path / "cache").exists()
    trt.WORLD.raises = {}
    (tmp_path / "cache" / "kernels").mkdir(parents=True)  # as one that may not be read
    opened().engine.close()
    (tmp_path / "cache" / "kernels").rmdir()
    opened().engine.close()
    trt.WORLD.raises = {"IRuntimeCache.deserialize": RuntimeError("of another driver")}
    opened().engine.close()


def test_a_plugin_library_is_registered_before_the_engine(trt: Any, opened: Callable[..., Rig], tmp_path: Path) -> None:
    opened(plugin=tmp_path / "lib.so").engine.close()
    names = trt.WORLD.names()
    assert names.index("IPluginRegistry.load_library") < names.index("Runtime.deserialize_cuda_engine")
    trt.WORLD.answers = {"IPluginRegistry.load_library": None}
    with pytest.raises(UnavailableError, match="expected a library that TensorRT registers, found a refusal"):
        opened(plugin=tmp_path / "lib.so")


def _refused(call: Callable[[], object]) -> str:
    """What a person reads of a BuildError, of which nothing stays: its frames hold what it came from."""
    with pytest.raises(BuildError) as caught:
        call()
    text = str(caught.value)
    del caught
    gc.collect()
    return text


@pytest.mark.parametrize(
    "method",
    [
        "Runtime.get_engine_validity",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.create_runtime_config",
        "ICudaEngine.create_execution_context",
        "IExecutionContext.set_optimization_profile_async",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.is_stream_capturable",
        "IExecutionContext.execute_async_v3",
    ],
)
def test_what_the_bindings_raise_is_no_fault_of_ours(trt: Any, opened: Callable[..., Rig], method: str) -> None:
    trt.WORLD.raises = {method: RuntimeError("In fill at core.cpp:7 (cudaError 2: out of memory)")}

    rigs: list[Rig] = []

    def use() -> None:
        rigs.append(opened())
        first = rigs[0].engine.executors().decode[0]
        first.set_shape("a", (1,))
        first.capturable(5)
        first.enqueue(5)

    text = _refused(use)
    assert text.startswith("x.engine: expected ")
    assert "found In fill at core.cpp:7 (cudaError 2: out of memory)" in text
    for rig in rigs:
        rig.engine.close()


def test_an_engine_that_is_refused_is_an_error(trt: Any, opened: Callable[..., Rig]) -> None:
    trt.WORLD.answers = {"Runtime.deserialize_cuda_engine": None}
    assert "expected an engine that TensorRT-RTX loads here, found a refusal" in _refused(opened)


@pytest.mark.parametrize(
    ("method", "answer", "told"),
    [
        ("ICudaEngine.create_execution_context", None, "expected an execution context, found none"),
        (
            "IExecutionContext.set_optimization_profile_async",
            False,
            "expected the engine to take profile 0, found a refusal",
        ),
    ],
)
def test_refused_contexts_are_errors(
    trt: Any, opened: Callable[..., Rig], method: str, answer: object, told: str
) -> None:
    trt.WORLD.answers = {method: answer}
    rig = opened()
    assert told in _refused(rig.engine.executors)
    rig.engine.close()


@pytest.mark.parametrize(
    ("method", "ask", "what"),
    [
        ("set_tensor_address", lambda e: e.set_address("a", 256), "an address for a"),
        ("set_input_shape", lambda e: e.set_shape("a", (1,)), "a of shape [1]"),
        ("execute_async_v3", lambda e: e.enqueue(5), "to run"),
    ],
)
def test_refused_calls_are_errors(
    trt: Any, opened: Callable[..., Rig], method: str, ask: Callable[[Any], object], what: str
) -> None:
    rig = opened()
    executor = rig.engine.executors().prefill
    if method == "execute_async_v3":
        for name in ("a", "key_cache.0"):
            executor.set_shape(name, (1,))
        for name in ("a", "key_cache.0", "key_cache_out.0"):
            executor.set_address(name, 256)
    trt.WORLD.answers = {f"IExecutionContext.{method}": False}
    assert f"x.engine: expected the engine to take {what}, found a refusal" in _refused(lambda: ask(executor))
    rig.engine.close()


def test_an_engine_that_shares_other_buffers_is_refused(trt: Any, opened: Callable[..., Rig]) -> None:
    rig = opened()
    rig.said.clear()  # that kernels are compiled
    rig.engine.check_aliases()
    assert rig.said == []
    trt.WORLD.tensors[2].aliased = "ssm_state.0"
    assert "key_cache_out.0: expected that of key_cache.0, found that of ssm_s" in _refused(rig.engine.check_aliases)
    rig.engine.close()


def test_an_alias_that_tensorrt_does_not_tell_of_is_said(trt: Any, opened: Callable[..., Rig]) -> None:
    rig = opened()
    rig.said.clear()
    trt.WORLD.tensors[2].aliased = None
    rig.engine.check_aliases()
    assert rig.said == [
        "warning: x.engine: TensorRT does not say that key_cache_out.0 works in place: `elastic-run BUNDLE --verify` "
        "shows whether it does"
    ]
    rig.engine.close()


@pytest.mark.parametrize("where", ["HOST", "DEVICE"])
def test_a_tensor_that_tensorrt_wants_in_main_memory_is_refused_by_name(
    trt: Any, opened: Callable[..., Rig], where: str
) -> None:
    rig = opened()
    rig.engine.check_locations()
    trt.WORLD.tensors[0].location = trt.TensorLocation[where]
    trt.WORLD.tensors[0].shape_inference = where == "DEVICE"
    found = {"HOST": "one of main memory", "DEVICE": "one of which TensorRT takes shapes"}[where]
    assert f"x.engine: a: expected a tensor of the card's memory, found {found}" in _refused(rig.engine.check_locations)
    rig.engine.close()


@pytest.mark.parametrize(
    ("faults", "kind", "found", "todo"),
    [
        (["OLD_CUDA_DRIVER", "CUDA_ERROR"], UnavailableError, "a driver that is too old", "Update NVIDIA's driver"),
        (["OLD_CUDA_RUNTIME"], UnavailableError, "a CUDA runtime that is too old", "Pip install --upgrade tens"),
        (["VERSION_MISMATCH"], UnavailableError, "another TensorRT-RTX than the one that built it", "Install the"),
        (["UNSUPPORTED_CC"], UnavailableError, "a card whose class it was not built for", "Export the bundle for it"),
        (["INSUFFICIENT_GPU_MEMORY"], UnavailableError, "too little GPU memory", "Close what uses the card"),
        (["CUDA_ERROR"], UnavailableError, "an error of CUDA", "See whether nvidia-smi shows the card"),
        ([], UnavailableError, "a refusal without a reason", "Install it again"),
        (["MALFORMED_ENGINE"], BuildError, "something else", "Copy the bundle again"),
    ],
)
def test_what_an_engine_cannot_run_here_for_is_named_before_anything_loads(
    trt: Any, opened: Callable[..., Rig], faults: list[str], kind: type[BuildError], found: str, todo: str
) -> None:
    """Nothing is wrong with an engine whose driver is too old: `--verify` must not say that it failed."""
    members = trt.EngineInvalidityDiagnostics.__members__
    trt.WORLD.validity = (trt.EngineValidity.INVALID, sum(members[name].value for name in faults))
    with pytest.raises(BuildError) as caught:
        opened(plugin=Path("lib.so"))
    assert type(caught.value) is kind
    assert (caught.value.subject, caught.value.found) == ("x.engine", found)
    assert todo in str(caught.value)
    assert not {"Runtime.deserialize_cuda_engine", "IPluginRegistry.load_library"} & set(trt.WORLD.names())
    del caught
    gc.collect()


def test_an_engine_of_a_near_class_runs_with_a_warning(trt: Any, opened: Callable[..., Rig]) -> None:
    trt.WORLD.validity = (trt.EngineValidity.SUBOPTIMAL, 0)
    rig = opened()
    rig.engine.close()
    assert rig.said[0] == "warning: x.engine was not built for this card and may be slow here: export with its --target"
