"""A recording stand-in for the bindings `tensorrt_rtx`: what the runtime uses of them, and nothing besides.

It writes down what is asked of it, in order, with the making and the end of every object; it refuses what TensorRT
refuses, raises where the bindings raise, and lists the rules of the interface that were broken. Its engine computes
with whatever `WORLD.run` is: twin.py makes it the bundle's own model where STAND_IN_BUNDLE names one. What only a card
can show is not shown: kernels, times, real memory.

Held against the real package by test_stand_in.py: no class, method, property or member that the package lacks.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Any

from . import twin
from .enums import (  # of which some are asked for by their names alone
    CudaGraphStrategy,
    DataType,
    DynamicShapesKernelSpecializationStrategy,
    EngineInvalidityDiagnostics,  # noqa: F401
    EngineValidity,
    ExecutionContextAllocationStrategy,
    TensorIOMode,
    TensorLocation,
)
from .world import WORLD, Living, Tensor, asked, dtype_of, tensor_named

__version__ = "1.7.1.116"
ALIGNMENT = 256


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity: Any, text: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "ILogger::log"')  # as pybind11 does


class IPluginRegistry:
    def load_library(self, plugin_path: str) -> Any:
        return asked("IPluginRegistry.load_library", (plugin_path,), object())


class Runtime(Living):
    engine_header_size = 64

    def __init__(self, logger: ILogger) -> None:
        super().__init__()
        WORLD.logger = logger
        self._host_code = False

    @property
    def engine_host_code_allowed(self) -> bool:
        return self._host_code

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, value: bool) -> None:
        self._host_code = asked("Runtime.engine_host_code_allowed", (value,), value)

    def get_plugin_registry(self) -> IPluginRegistry:
        return IPluginRegistry()

    def get_engine_validity(self, buffer: bytes) -> tuple[EngineValidity, int]:
        if len(buffer) < self.engine_header_size:
            WORLD.broken.append("get_engine_validity of less than engine_header_size bytes")
        return asked("Runtime.get_engine_validity", (len(buffer),), WORLD.validity)  # type: ignore[no-any-return]

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if bundle := os.environ.get("STAND_IN_BUNDLE"):
            twin.become(WORLD, Tensor, Path(bundle), bytes(serialized_engine))
        return asked(  # type: ignore[no-any-return]
            "Runtime.deserialize_cuda_engine", (len(serialized_engine),), lambda: ICudaEngine(self)
        )


class IRuntimeCache(Living):
    def serialize(self) -> bytes | None:
        return asked("IRuntimeCache.serialize", (), b"kernels")  # type: ignore[no-any-return]

    def deserialize(self, blob: bytes) -> bool:
        return asked("IRuntimeCache.deserialize", (bytes(blob),), True)  # type: ignore[no-any-return]


class IRuntimeConfig(Living):
    def __init__(self) -> None:
        super().__init__()
        self._strategy = ExecutionContextAllocationStrategy.STATIC
        self._graphs = CudaGraphStrategy.DISABLED
        self._kernels = DynamicShapesKernelSpecializationStrategy.LAZY
        self._cache: Any = None

    @property
    def cuda_graph_strategy(self) -> CudaGraphStrategy:
        return self._graphs

    @cuda_graph_strategy.setter
    def cuda_graph_strategy(self, value: CudaGraphStrategy) -> None:
        self._graphs = asked("IRuntimeConfig.cuda_graph_strategy", (value,), value)

    @property
    def dynamic_shapes_kernel_specialization_strategy(self) -> DynamicShapesKernelSpecializationStrategy:
        return self._kernels

    @dynamic_shapes_kernel_specialization_strategy.setter
    def dynamic_shapes_kernel_specialization_strategy(self, value: DynamicShapesKernelSpecializationStrategy) -> None:
        self._kernels = asked("IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy", (value,), value)

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self._strategy = strategy
        asked("IRuntimeConfig.set_execution_context_allocation_strategy", (strategy,), None)

    def create_runtime_cache(self) -> IRuntimeCache:
        return asked("IRuntimeConfig.create_runtime_cache", (), IRuntimeCache)  # type: ignore[no-any-return]

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return asked("IRuntimeConfig.set_runtime_cache", (), True)  # type: ignore[no-any-return]


class ICudaEngine(Living):
    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._runtime = runtime  # as the bindings do: an engine keeps its runtime

    @property
    def device_memory_size_v2(self) -> int:
        return max(WORLD.scratch)

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return WORLD.scratch[profile_index]

    num_optimization_profiles = 2
    num_aux_streams = 0

    @property
    def num_io_tensors(self) -> int:
        return len(WORLD.tensors)

    def get_tensor_name(self, index: int) -> str:
        return WORLD.tensors[index].name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if tensor_named(name).is_input else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return dtype_of(tensor_named(name))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tensor_named(name).shape

    def get_tensor_format_desc(self, name: str) -> str:
        return "Row major linear format"

    def get_tensor_location(self, name: str) -> TensorLocation:
        return tensor_named(name).location

    def is_shape_inference_io(self, name: str) -> bool:
        return tensor_named(name).shape_inference

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return asked("ICudaEngine.get_aliased_input_tensor", (name,), tensor_named(name).aliased)  # type: ignore[no-any-return]

    def create_runtime_config(self) -> IRuntimeConfig:
        return asked("ICudaEngine.create_runtime_config", (), IRuntimeConfig)  # type: ignore[no-any-return]

    def create_execution_context(self, runtime_config: IRuntimeConfig) -> IExecutionContext | None:
        return asked(  # type: ignore[no-any-return]
            "ICudaEngine.create_execution_context", (), lambda: IExecutionContext(self, runtime_config)
        )


class IExecutionContext(Living):
    """Keeps its engine, not the cache of its config: that one is the caller's to keep."""

    def __init__(self, engine: ICudaEngine, config: IRuntimeConfig) -> None:
        super().__init__()
        self._engine, self._graphs, self._kernels = engine, config._graphs, config._kernels
        self._user_managed = config._strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        self._profile, self._scratch = 0, 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._recorded: set[tuple[tuple[str, int], ...]] = set()  # addresses that a graph of its own holds

    def set_device_memory(self, memory: int, size: int) -> None:
        asked("IExecutionContext.set_device_memory", (memory, size), None)
        if memory % ALIGNMENT or not memory:
            WORLD.broken.append(f"scratch at {memory}, not at a multiple of {ALIGNMENT}")
        self._scratch = size

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        arguments = (profile_index, stream_handle)
        return asked("IExecutionContext.set_optimization_profile_async", arguments, True)  # type: ignore[no-any-return]

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        known = tensor_named(name)
        fits = len(shape) == len(known.shape) and all(k in (-1, s) for k, s in zip(known.shape, shape, strict=True))
        if name == "input_ids":
            fits = fits and (shape[1] == 1 if self._profile == 0 else shape[1] <= WORLD.max_tokens)
        self._shapes[name] = shape
        return asked("IExecutionContext.set_input_shape", (name, shape), fits and known.is_input)  # type: ignore[no-any-return]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if memory % ALIGNMENT:
            WORLD.broken.append(f"{name} at {memory}, not at a multiple of {ALIGNMENT}")
        self._addresses[tensor_named(name).name] = memory
        return asked("IExecutionContext.set_tensor_address", (name, memory), True)  # type: ignore[no-any-return]

    def infer_shapes(self) -> list[str]:
        return [t.name for t in WORLD.tensors if t.is_input and -1 in t.shape and t.name not in self._shapes]

    def update_device_memory_size_for_shapes(self) -> int:
        if missing := self.infer_shapes():
            WORLD.broken.append(f"update_device_memory_size_for_shapes without the shapes of {missing}")
        return WORLD.scratch[self._profile]

    def is_stream_capturable(self, stream: int) -> bool:
        return asked("IExecutionContext.is_stream_capturable", (stream,), WORLD.capturable)  # type: ignore[no-any-return]

    def execute_async_v3(self, stream_handle: int) -> bool:
        answer = asked("IExecutionContext.execute_async_v3", (self._profile, stream_handle), True)
        unbound = [t.name for t in WORLD.tensors if not self._addresses.get(t.name)]
        if unbound or self.infer_shapes():
            WORLD.broken.append(f"a run without the addresses of {unbound}, the shapes of {self.infer_shapes()}")
            return False
        if self._user_managed and self._scratch < WORLD.scratch[self._profile]:
            WORLD.broken.append(f"profile {self._profile} given {self._scratch} bytes of scratch")
        if self._graphs is CudaGraphStrategy.WHOLE_GRAPH_CAPTURE:
            self._recorded.add(tuple(sorted(self._addresses.items())))
            if len(self._recorded) > 1:
                WORLD.broken.append("a context that records its own graph was bound to other addresses")
        WORLD.shapes_seen.add((self._profile, self._shapes.get("input_ids", ())))
        if answer:
            WORLD.run(self._profile, dict(self._addresses), dict(self._shapes))
        return bool(answer)
