"""Every name used of tensorrt_rtx exists there, and a stand-in module is driven as it should be."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from elastic_runtime.errors import BuildError
from elastic_runtime.format.manifest import OutputPort
from elastic_runtime.tensorrt import trt_engine
from elastic_runtime.tensorrt.trt_engine import TrtEngine

#: attribute of trt_engine.py -> the class of tensorrt_rtx it is used on
CLASSES = {
    "set_input_shape": "IExecutionContext",
    "set_tensor_address": "IExecutionContext",
    "execute_async_v3": "IExecutionContext",
    "is_stream_capturable": "IExecutionContext",
    "set_device_memory": "IExecutionContext",
    "set_optimization_profile_async": "IExecutionContext",
    "deserialize_cuda_engine": "Runtime",
    "engine_host_code_allowed": "Runtime",
    "get_plugin_registry": "Runtime",
    "load_library": "IPluginRegistry",
    "device_memory_size_v2": "ICudaEngine",
    "num_io_tensors": "ICudaEngine",
    "get_tensor_name": "ICudaEngine",
    "get_aliased_input_tensor": "ICudaEngine",
    "create_execution_context": "ICudaEngine",
    "create_runtime_config": "ICudaEngine",
    "set_execution_context_allocation_strategy": "IRuntimeConfig",
    "create_runtime_cache": "IRuntimeConfig",
    "set_runtime_cache": "IRuntimeConfig",
    "deserialize": "IRuntimeCache",
    "serialize": "IRuntimeCache",
    "USER_MANAGED": "ExecutionContextAllocationStrategy",
    "WARNING": "ILogger.Severity",
}


def test_every_name_exists_in_the_installed_package() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    used = {node.attr for node in ast.walk(ast.parse(inspect.getsource(trt_engine))) if isinstance(node, ast.Attribute)}
    for name, owner in CLASSES.items():
        assert name in used, f"{name} is not used any more"
        found: Any = trt
        for part in owner.split("."):
            found = getattr(found, part)
        assert hasattr(found, name), f"{owner}.{name}"


class Recorder:
    """Any object of TensorRT: answers as scripted, writes down what it was asked."""

    def __init__(self, log: list[tuple[str, tuple[Any, ...]]], answers: dict[str, Any]) -> None:
        self._log, self._answers = log, answers

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self._log.append((name, (value,)))
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = self._answers.get(name, True)
        if name in ("device_memory_size_v2", "num_io_tensors", "ExecutionContextAllocationStrategy", "ILogger"):
            return value

        def call(*arguments: Any) -> Any:
            self._log.append((name, arguments))
            return value(*arguments) if callable(value) else value

        return call


class Logger:
    class Severity:
        ERROR, WARNING, INFO = 1, 2, 3


class Strategy:
    USER_MANAGED = "user"


class Memory:
    stream = 5

    def __init__(self) -> None:
        self.held: list[int] = []

    def allocate(self, nbytes: int) -> int:
        self.held.append(4096)
        return 4096

    def free(self, address: int) -> None:
        self.held.remove(address)

    def synchronize(self) -> None:
        pass


class Entry:
    file = "x.engine"
    outputs = (OutputPort("key_cache_out.0", "float32", ("B",), "key_cache.0", "must"),)


def _open(
    tmp_path: Path, say: Any = print, plugin: Path | None = None, host_code: bool = False, **answers: Any
) -> tuple[TrtEngine, list[Any], Memory]:
    log: list[Any] = []
    (tmp_path / "x.engine").write_bytes(b"engine")
    scripted: dict[str, Any] = {
        "device_memory_size_v2": 1000,
        "num_io_tensors": 2,
        "get_tensor_name": lambda i: "ab"[i],
    }
    scripted |= {"serialize": b"kernels", "get_aliased_input_tensor": None, "ILogger": Logger} | answers
    scripted["ExecutionContextAllocationStrategy"] = Strategy
    anything = Recorder(log, scripted)
    made = (
        "Runtime",
        "deserialize_cuda_engine",
        "create_runtime_config",
        "create_runtime_cache",
        "get_plugin_registry",
    )
    for name in (*made, "create_execution_context"):
        scripted.setdefault(name, anything)
        if scripted[name] is anything:
            scripted[name] = lambda *_: anything
    memory: Any = Memory()
    cache = tmp_path / "cache" / "kernels"
    more: Any = {"plugin": plugin, "host_code": host_code, "cache": cache, "say": say}
    return TrtEngine(anything, Entry, tmp_path / "x.engine", memory, **more), log, memory  # type: ignore[arg-type]


def test_two_contexts_share_scratch_and_have_a_profile_each(tmp_path: Path) -> None:
    engine, log, memory = _open(tmp_path)
    engine.executors()
    assert [a for n, a in log if n == "set_device_memory"] == [(4096, 1000)] * 2
    assert [a for n, a in log if n == "set_optimization_profile_async"] == [(0, 5), (1, 5)]
    assert ("set_execution_context_allocation_strategy", ("user",)) in log
    names = [name for name, _ in log]
    assert names.index("set_runtime_cache") < names.index("create_execution_context")
    assert engine.tensors() == {"a", "b"}
    assert (engine.scratch, memory.held) == (1000, [4096])
    engine.close()
    assert memory.held == []


def test_the_kernel_cache_is_written_and_read_again(tmp_path: Path) -> None:
    engine, log, _ = _open(tmp_path)
    assert not [name for name, _ in log if name == "deserialize"]
    engine.close()
    assert (tmp_path / "cache" / "kernels").read_bytes() == b"kernels"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["kernels"]
    _, log, _ = _open(tmp_path)
    assert ("deserialize", (b"kernels",)) in log


def test_what_fails_while_it_closes_keeps_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card whose every call fails after an error that CUDA keeps."""
    engine, _, memory = _open(tmp_path)
    engine.executors()
    free = memory.free

    def failing(*given: int) -> bytes:
        if given:
            free(*given)
        raise BuildError("card 0", expected="luck", found="none")

    monkeypatch.setattr(engine, "save_cache", failing)
    monkeypatch.setattr(memory, "free", failing)
    with pytest.raises(BuildError, match="luck"):
        engine.close()
    assert (memory.held, engine._contexts) == ([], [])
    assert not {"_config", "_cache", "_engine", "_runtime"} & set(vars(engine))


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    engine, _, _ = _open(tmp_path)
    engine.close()


def test_a_plugin_library_is_registered_before_the_engine(tmp_path: Path) -> None:
    _, log, _ = _open(tmp_path, plugin=tmp_path / "lib.so")
    names = [name for name, _ in log]
    assert names.index("load_library") < names.index("deserialize_cuda_engine")
    with pytest.raises(BuildError, match="expected a library that TensorRT registers, found a refusal"):
        _open(tmp_path, plugin=tmp_path / "lib.so", load_library=lambda path: None)


@pytest.mark.parametrize("carries", [False, True])
def test_host_code_is_allowed_for_an_engine_that_carries_its_library_alone(tmp_path: Path, carries: bool) -> None:
    _, log, _ = _open(tmp_path, host_code=carries)
    names = [name for name, _ in log]
    assert names.index("engine_host_code_allowed") < names.index("deserialize_cuda_engine")
    assert ("engine_host_code_allowed", (carries,)) in log


def test_refusals_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="expected an engine that TensorRT-RTX loads here, found a refusal"):
        _open(tmp_path, deserialize_cuda_engine=lambda data: None)
    engine, _, _ = _open(tmp_path, create_execution_context=lambda config: None)
    with pytest.raises(BuildError, match="expected an execution context, found none"):
        engine.executors()
    engine, _, _ = _open(tmp_path, set_optimization_profile_async=False)
    with pytest.raises(BuildError, match="expected a profile 0, found a refusal"):
        engine.executors()
    engine, _, _ = _open(tmp_path, set_tensor_address=False, set_input_shape=False, execute_async_v3=False)
    executor, _ = engine.executors()
    for ask, what in (
        (lambda: executor.set_address("w", 256), "an address for w"),
        (lambda: executor.set_shape("w", (1, 2)), r"w of shape \[1, 2\]"),
        (lambda: executor.enqueue(5), "to run"),
    ):
        with pytest.raises(BuildError, match=f"x.engine: expected the engine to take {what}, found a refusal"):
            ask()


@pytest.mark.parametrize(("shared", "fails"), [("key_cache.0", False), (None, False), ("ssm_state.0", True)])
def test_an_engine_that_shares_other_buffers_is_refused(tmp_path: Path, shared: str | None, fails: bool) -> None:
    engine, _, _ = _open(tmp_path, get_aliased_input_tensor=lambda name: shared)
    if not fails:
        engine.check_aliases()
        return
    with pytest.raises(BuildError, match=r"key_cache_out\.0: expected that of key_cache\.0, found that of ssm_s"):
        engine.check_aliases()
