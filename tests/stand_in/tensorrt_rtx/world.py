"""What the stand-in is told to be and what it has seen: no name of the bindings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .enums import DataType, EngineValidity, TensorLocation

#: The bindings' types of elements by our names of them, in manifests (tensors) and in weights.json.
_DTYPES = {
    "int8": DataType.INT8,
    "int64": DataType.INT64,
    "fp8": DataType.FP8,
    "bfloat16": DataType.BF16,
    "bf16": DataType.BF16,
    "float16": DataType.HALF,
    "fp16": DataType.HALF,
    "float32": DataType.FLOAT,
    "fp32": DataType.FLOAT,
}


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


def dtype_of(tensor: Tensor) -> DataType:
    """Its dtype as the bindings give it."""
    return _DTYPES[tensor.dtype]


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
    on_call: Callable[[str], None] = lambda name: None  # hears "Class.method" of every call, and may raise
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


class Living:
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


def asked(name: str, arguments: tuple[Any, ...], usual: Any) -> Any:
    """Write a call down; give what it is told to give, else `usual`, made if it is a maker."""
    WORLD.events.append((name, arguments))
    WORLD.on_call(name)
    if name in WORLD.raises:
        told = WORLD.raises[name]
        raise type(told)(*told.args)  # a new one: an exception keeps the frames that it passed through
    if name in WORLD.answers:
        return WORLD.answers[name]
    return usual() if callable(usual) else usual


def tensor_named(name: str) -> Tensor:
    """An input or output of the engine."""
    return next(tensor for tensor in WORLD.tensors if tensor.name == name)
