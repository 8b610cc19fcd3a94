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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import twin

__version__ = "1.7.1.116"
ALIGNMENT = 256


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class CudaGraphStrategy(enum.Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class EngineValidity(enum.Enum):
    VALID = 0
    SUBOPTIMAL = 1
    INVALID = 2


class EngineInvalidityDiagnostics(enum.Enum):
    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2
    OLD_CUDA_DRIVER = 4
    OLD_CUDA_RUNTIME = 8
    INSUFFICIENT_GPU_MEMORY = 16
    MALFORMED_ENGINE = 32
    CUDA_ERROR = 64


@dataclass
class Tensor:
    """An input or output of the stand-in's engine; -1 is a dimension that the caller sets."""

    name: str
    is_input: bool
    shape: tuple[int, ...]
    dtype: str = "float32"
    location: TensorLocation = TensorLocation.DEVICE
    shape_inference: bool = False
    aliased: str | None = None


#: What an engine does with the addresses and shapes that are bound: (profile, addresses, shapes).
Run = Callable[[int, Mapping[str, int], Mapping[str, tuple[int, ...]]], None]


@dataclass
class World:
    """What the stand-in is told to be, and what it has seen."""

    tensors: list[Tensor] = field(default_factory=list)
    run: Run = lambda profile, addresses, shapes: None
    scratch: tuple[int, int] = (512, 1000)  # bytes, of each profile
    max_tokens: int = 1 << 30
    validity: tuple[EngineValidity, int] = (EngineValidity.VALID, 0)
    capturable: bool = True
    answers: dict[str, Any] = field(default_factory=dict)  # by "Class.method": given in place of what it would give
    raises: dict[str, Exception] = field(default_factory=dict)  # by "Class.method"
    events: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # rules of the interface
    living: dict[str, int] = field(default_factory=dict)  # objects of each class
    shapes_seen: set[tuple[int, tuple[int, ...]]] = field(default_factory=set)  # (profile, shape of input_ids)
    logger: Any = None

    def names(self) -> list[str]:
        """The names of the events, in order."""
        return [name for name, _ in self.events]

    def calls(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of every call of that method, such as `Runtime.deserialize_cuda_engine`."""
        return [arguments for found, arguments in self.events if found == name]

    def reset(self) -> None:
        """As it was at first, in place."""
        self.__dict__.update(World().__dict__)


WORLD = World()


class _Living:
    """An object whose making and end are written down."""

    def __init__(self) -> None:
        name = type(self).__name__
        WORLD.events.append((f"{name} made", ()))
        WORLD.living[name] = WORLD.living.get(name, 0) + 1

    def __del__(self) -> None:
        name = type(self).__name__
        WORLD.living[name] = WORLD.living.get(name, 0) - 1
        WORLD.events.append((f"{name} ended", ()))
        if name in ("IRuntimeCache", "IRuntimeConfig", "ICudaEngine", "Runtime") and WORLD.living.get(
            "IExecutionContext"
        ):
            WORLD.broken.append(f"{name} ended before the contexts that were made from it")


def _asked(name: str, arguments: tuple[Any, ...], usual: Any) -> Any:
    """Write a call down; give what it is told to give, else `usual`, made if it is a maker."""
    WORLD.events.append((name, arguments))
    if name in WORLD.raises:
        told = WORLD.raises[name]
        raise type(told)(*told.args)  # a new one: an exception keeps the frames that it passed through
    if name in WORLD.answers:
        return WORLD.answers[name]
    return usual() if callable(usual) else usual


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity: Any, text: str) -> None:
        raise NotImplementedError


class IPluginRegistry:
    def load_library(self, plugin_path: str) -> Any:
        return _asked("IPluginRegistry.load_library", (plugin_path,), object())


class Runtime(_Living):
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
        self._host_code = _asked("Runtime.engine_host_code_allowed", (value,), value)

    def get_plugin_registry(self) -> IPluginRegistry:
        return IPluginRegistry()

    def get_engine_validity(self, buffer: bytes) -> tuple[EngineValidity, int]:
        if len(buffer) < self.engine_header_size:
            WORLD.broken.append("get_engine_validity of less than engine_header_size bytes")
        return _asked("Runtime.get_engine_validity", (len(buffer),), WORLD.validity)  # type: ignore[no-any-return]

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if bundle := os.environ.get("STAND_IN_BUNDLE"):
            twin.become(WORLD, Tensor, Path(bundle), bytes(serialized_engine))
        return _asked(  # type: ignore[no-any-return]
            "Runtime.deserialize_cuda_engine", (len(serialized_engine),), lambda: ICudaEngine(self)
        )


class IRuntimeCache(_Living):
    def serialize(self) -> bytes | None:
        return _asked("IRuntimeCache.serialize", (), b"kernels")  # type: ignore[no-any-return]

    def deserialize(self, blob: bytes) -> bool:
        return _asked("IRuntimeCache.deserialize", (bytes(blob),), True)  # type: ignore[no-any-return]


class IRuntimeConfig(_Living):
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
        self._graphs = _asked("IRuntimeConfig.cuda_graph_strategy", (value,), value)

    @property
    def dynamic_shapes_kernel_specialization_strategy(self) -> DynamicShapesKernelSpecializationStrategy:
        return self._kernels

    @dynamic_shapes_kernel_specialization_strategy.setter
    def dynamic_shapes_kernel_specialization_strategy(self, value: DynamicShapesKernelSpecializationStrategy) -> None:
        self._kernels = _asked("IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy", (value,), value)

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self._strategy = strategy
        _asked("IRuntimeConfig.set_execution_context_allocation_strategy", (strategy,), None)

    def create_runtime_cache(self) -> IRuntimeCache:
        return _asked("IRuntimeConfig.create_runtime_cache", (), IRuntimeCache)  # type: ignore[no-any-return]

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return _asked("IRuntimeConfig.set_runtime_cache", (), True)  # type: ignore[no-any-return]


class ICudaEngine(_Living):
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
        return TensorIOMode.INPUT if _tensor(name).is_input else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return _tensor(name).dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return _tensor(name).shape

    def get_tensor_format_desc(self, name: str) -> str:
        return "Row major linear format"

    def get_tensor_location(self, name: str) -> TensorLocation:
        return _tensor(name).location

    def is_shape_inference_io(self, name: str) -> bool:
        return _tensor(name).shape_inference

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return _asked("ICudaEngine.get_aliased_input_tensor", (name,), _tensor(name).aliased)  # type: ignore[no-any-return]

    def create_runtime_config(self) -> IRuntimeConfig:
        return _asked("ICudaEngine.create_runtime_config", (), IRuntimeConfig)  # type: ignore[no-any-return]

    def create_execution_context(self, runtime_config: IRuntimeConfig) -> IExecutionContext | None:
        return _asked(  # type: ignore[no-any-return]
            "ICudaEngine.create_execution_context", (), lambda: IExecutionContext(self, runtime_config)
        )


class IExecutionContext(_Living):
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
        _asked("IExecutionContext.set_device_memory", (memory, size), None)
        if memory % ALIGNMENT or not memory:
            WORLD.broken.append(f"scratch at {memory}, not at a multiple of {ALIGNMENT}")
        self._scratch = size

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        arguments = (profile_index, stream_handle)
        return _asked("IExecutionContext.set_optimization_profile_async", arguments, True)  # type: ignore[no-any-return]

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        known = _tensor(name)
        fits = len(shape) == len(known.shape) and all(k in (-1, s) for k, s in zip(known.shape, shape, strict=True))
        if name == "input_ids":
            fits = fits and (shape[1] == 1 if self._profile == 0 else shape[1] <= WORLD.max_tokens)
        self._shapes[name] = shape
        return _asked("IExecutionContext.set_input_shape", (name, shape), fits and known.is_input)  # type: ignore[no-any-return]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if memory % ALIGNMENT:
            WORLD.broken.append(f"{name} at {memory}, not at a multiple of {ALIGNMENT}")
        self._addresses[_tensor(name).name] = memory
        return _asked("IExecutionContext.set_tensor_address", (name, memory), True)  # type: ignore[no-any-return]

    def infer_shapes(self) -> list[str]:
        return [t.name for t in WORLD.tensors if t.is_input and -1 in t.shape and t.name not in self._shapes]

    def update_device_memory_size_for_shapes(self) -> int:
        if missing := self.infer_shapes():
            WORLD.broken.append(f"update_device_memory_size_for_shapes without the shapes of {missing}")
        return WORLD.scratch[self._profile]

    def is_stream_capturable(self, stream: int) -> bool:
        return _asked("IExecutionContext.is_stream_capturable", (stream,), WORLD.capturable)  # type: ignore[no-any-return]

    def execute_async_v3(self, stream_handle: int) -> bool:
        answer = _asked("IExecutionContext.execute_async_v3", (self._profile, stream_handle), True)
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


def _tensor(name: str) -> Tensor:
    return next(tensor for tensor in WORLD.tensors if tensor.name == name)
