"""What an engine build is asked for, a plain value that travels to the build process as JSON, and the two optimisation
profiles that follow from it: decode (T = 1) and prefill (1 ≤ T ≤ max_tokens).

The build process imports this module: neither onnx nor torch nor numpy may be imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from elastic_export.products import TENSORRT_RTX, ProductName
from elastic_runtime.format.interface import Dim, OpsMode, Port, Precision, StatePort
from elastic_runtime.format.records import decode, encode

_PATHS = ("onnx", "output", "plugin_library")


@dataclass(frozen=True)
class EngineRequest:
    """One engine to build.

    `ports` are the token inputs and the states, `weights` the weights that are inputs (none where they are embedded),
    `outputs` the outputs that are no states. Shapes may hold the symbols B, T and S; S becomes `max_context`.
    `dequantised` is the number of weights that the graph dequantises. `plugin_ops` maps the name of each op that must
    become a plugin to the number of its layers, `plugin_creators` the same names to `module:factory` of a creator.
    `plugin_library` is the library that goes into the engine and whose own creators then build it; without one the
    Python ones do. `activation_limits` (bytes, of decode and of prefill) bound
    scratch memory, `size_limit` (bytes) the engine file without its library: an engine above one of them is refused, or
    with `allow_oversize` kept and its facts say so. `flavour` is the TensorRT product.
    """

    onnx: Path
    output: Path
    compute_capabilities: tuple[str, ...]
    precision: Precision
    max_tokens: int
    max_context: int
    max_batch: int
    ops: OpsMode
    ports: tuple[Port | StatePort, ...]
    outputs: tuple[Port, ...]
    weights: tuple[Port, ...] = ()
    dequantised: int = 0
    plugin_ops: dict[str, int] = field(default_factory=dict)
    plugin_creators: dict[str, str] = field(default_factory=dict)
    plugin_library: Path | None = None
    activation_limits: tuple[int, int] | None = None
    size_limit: int | None = None
    allow_oversize: bool = False
    flavour: ProductName = TENSORRT_RTX.name

    def states(self) -> tuple[StatePort, ...]:
        """The ports that carry state."""
        return tuple(port for port in self.ports if isinstance(port, StatePort))

    def network_inputs(self) -> dict[str, Port]:
        """Every input the network must have, by name."""
        return {port.name: port for port in (*self.ports, *self.weights)}

    def network_outputs(self) -> dict[str, Port]:
        """Every output the network must have, by name; a state's output has dtype and shape of its input."""
        states = {port.output: Port(port.output, port.dtype, port.shape) for port in self.states()}
        return {**{port.name: port for port in self.outputs}, **states}

    def fixed(self, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """That shape with S fixed to `max_context`."""
        return tuple(self.max_context if dim == "S" else dim for dim in shape)

    def _paths(self) -> dict[str, Path | None]:
        return {name: getattr(self, name) for name in _PATHS}

    def to_json(self) -> str:
        """This request as JSON text, the same for the same request."""
        paths = {name: path and path.as_posix() for name, path in self._paths().items()}
        return json.dumps(encode(self) | paths, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EngineRequest:
        """The request that `to_json` wrote."""
        values = json.loads(text)
        paths = {name: text and Path(text) for name in _PATHS for text in (values.pop(name),)}
        return decode(cls, values, "the request of a build", **paths)


#: Smallest, preferred and largest shape of one input.
Span = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

#: In the order of the profiles, which is that of their numbers in an engine: runtimes switch by number, and the builder
#: logs scratch memory in this order. Decode is 0, which a new execution context begins with.
PROFILE_NAMES = ("decode", "prefill")
PROFILE_COUNT = len(PROFILE_NAMES)


@dataclass(frozen=True)
class Range:
    """Values a symbol takes in one profile: smallest, preferred, largest."""

    low: int
    preferred: int
    high: int


def profiles(request: EngineRequest) -> tuple[dict[str, Span], dict[str, Span]]:
    """Spans of every dynamic input, profile 0 (T = 1) first.

    Two, because kernels are chosen for a profile's preferred shape: those for `max_tokens` rows are slow for one, and
    one row is what nearly every call of a chat has. Decode has T = 1 only, which makes T static there. Prefill begins
    at 1 all the same: the last part of a prompt may be one token, and a program with one context need not switch.

    Shapes are those of the request's ports, not of the parsed network. The two are compared
    (`checks.check_network`), which would say nothing of an interface that had been read off the network.

    B is preferred at max_batch in both: whoever raises --max-batch says that this is the load, and with the default
    of 1 the batch is static, which lets the builder fold it. Inputs of static shape (weights) are left out.
    """
    batch = Range(1, request.max_batch, request.max_batch)
    decode = _spans(request, {"B": batch, "T": Range(1, 1, 1)})
    prefill = _spans(request, {"B": batch, "T": Range(1, request.max_tokens, request.max_tokens)})
    return decode, prefill


def _spans(request: EngineRequest, ranges: Mapping[str, Range]) -> dict[str, Span]:
    spans = {}
    for name, port in request.network_inputs().items():
        shape = request.fixed(port.shape)
        if any(isinstance(dim, str) for dim in shape):
            spans[name] = _span(shape, ranges)
    return spans


def _span(shape: tuple[Dim, ...], ranges: Mapping[str, Range]) -> Span:
    dims = [Range(dim, dim, dim) if isinstance(dim, int) else ranges[dim] for dim in shape]
    return tuple(d.low for d in dims), tuple(d.preferred for d in dims), tuple(d.high for d in dims)
