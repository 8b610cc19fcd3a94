"""What an engine build is asked for: a plain value that travels to the build process as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from elastic_runtime.interface import Dim, OpsMode, Port, StatePort

Precision = Literal["bf16", "fp16", "fp32"]


@dataclass(frozen=True)
class EngineRequest:
    """One engine to build.

    `ports` are the token inputs and the states, `weights` the weights that are inputs (none where they are embedded),
    `outputs` the outputs that are no states. Shapes may hold the symbols B, T and S; S becomes `max_context`.
    `plugin_ops` maps the name of each op that must become a plugin to the number of its layers, `plugin_creators` the
    same names to `module:factory` of a creator. `activation_limits` (bytes, of decode and of prefill) bound scratch
    memory, `size_limit` (bytes) the engine file: an engine above one of them is refused, or with `allow_oversize`
    kept and its facts say so. `flavour` is the TensorRT product: `tensorrt_rtx` or `tensorrt`.
    """

    onnx: Path
    output: Path
    compute_capabilities: tuple[str, ...]
    precision: Precision
    max_tokens: int
    max_context: int
    max_batch: int
    ops: OpsMode
    ports: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights: tuple[Port, ...] = ()
    plugin_ops: Mapping[str, int] = field(default_factory=dict)
    plugin_creators: Mapping[str, str] = field(default_factory=dict)
    activation_limits: tuple[int, int] | None = None
    size_limit: int | None = None
    allow_oversize: bool = False
    flavour: str = "tensorrt_rtx"

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

    def to_json(self) -> str:
        """This request as JSON text, the same for the same request."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values.update(onnx=self.onnx.as_posix(), output=self.output.as_posix())
        for key in ("ports", "outputs", "weights"):
            values[key] = [_port_to_json(port) for port in values[key]]
        return json.dumps(values, indent=1, sort_keys=True, default=dict)

    @classmethod
    def from_json(cls, text: str) -> EngineRequest:
        """The request that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values.update(onnx=Path(values["onnx"]), output=Path(values["output"]))
        values["compute_capabilities"] = tuple(values["compute_capabilities"])
        if values["activation_limits"] is not None:
            decode, prefill = values["activation_limits"]
            values["activation_limits"] = (decode, prefill)
        for key in ("ports", "outputs", "weights"):
            values[key] = tuple(_port_from_json(port) for port in values[key])
        return cls(**values)


def _port_to_json(port: Port) -> dict[str, Any]:
    values: dict[str, Any] = {"name": port.name, "dtype": port.dtype, "shape": list(port.shape)}
    if isinstance(port, StatePort):
        values.update(kind=port.kind, ordinal=port.ordinal)
    return values


def _port_from_json(values: dict[str, Any]) -> Port:
    values["shape"] = tuple(values["shape"])
    return StatePort(**values) if "kind" in values else Port(**values)
