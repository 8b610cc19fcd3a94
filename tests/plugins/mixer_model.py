"""Models of Mamba-2 mixers alone, as the exporter emits them: the op as a local function, parameters as inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.parser

from elastic_export.engine.request import EngineRequest
from elastic_export.ops.mamba2_mixer.body import function as mixer_function
from elastic_runtime.format.interface import Port, StatePort

OPSET = 24
PYTHON_CREATOR = "elastic_export.ops.mamba2_mixer.creator:create"


@dataclass(frozen=True)
class Mixer:
    """Sizes of one mixer."""

    heads: int = 8
    head_dim: int = 20
    groups: int = 2
    state: int = 16
    width: int = 4
    dtype: str = "bfloat16"

    def ports(self, i: int) -> tuple[Port, ...]:
        """Activations and states of mixer i."""
        channels = self.heads * self.head_dim + 2 * self.groups * self.state
        row = self.heads * self.head_dim + channels + self.heads
        conv, ssm = ("B", self.width - 1, channels), ("B", self.heads, self.head_dim, self.state)
        return (
            Port(f"projected.{i}", self.dtype, ("B", "T", row)),
            StatePort(f"conv_state.{i}", self.dtype, conv, "conv_state", i),
            StatePort(f"ssm_state.{i}", "float32", ssm, "ssm_state", i),
        )

    def weights(self, i: int) -> tuple[Port, ...]:
        """Parameters of mixer i."""
        inner = self.heads * self.head_dim
        channels = inner + 2 * self.groups * self.state
        shapes = {"cw": (channels, 1, self.width), "cb": (channels,), "a": (self.heads,), "d": (self.heads,)}
        shapes |= {"b": (self.heads,), "n": (inner,)}
        return tuple(Port(f"{name}.{i}", self.dtype, shape) for name, shape in shapes.items())


def mixer_request(
    folder: Path,
    *,
    output: str = "mixer.engine",
    creator: str = PYTHON_CREATOR,
    mixer: Mixer | None = None,
    count: int = 1,
) -> EngineRequest:
    """Writes a model of `count` mixers to `folder` and asks for an SM120 engine of it with plugins."""
    mixer = mixer or Mixer()
    length = Port("length", "int64", ("B",))
    ports = (length, *(port for i in range(count) for port in mixer.ports(i)))
    weights = tuple(port for i in range(count) for port in mixer.weights(i))
    outputs = tuple(Port(f"y.{i}", mixer.dtype, ("B", "T", mixer.heads * mixer.head_dim)) for i in range(count))
    states = [Port(p.output, p.dtype, p.shape) for p in ports if isinstance(p, StatePort)]
    sizes = f"n_groups = {mixer.groups}, head_dim = {mixer.head_dim}, state_size = {mixer.state}, epsilon = 1e-5"
    nodes = "\n".join(_node(i, sizes) for i in range(count))
    signature = f"m ({_values((*ports, *weights))}) => ({_values((*outputs, *states))})"
    text = f'<ir_version: 11, opset_import: ["": {OPSET}, "elastic": 1]>\n{signature} {{\n{nodes}\n}}'
    model = onnx.parser.parse_model(text)
    model.functions.append(mixer_function(OPSET))
    path = folder / "mixer.onnx"
    onnx.save(model, path)
    return EngineRequest(
        path, folder / output, ("SM120",), "bf16", 256, 16384, 1, "plugin", ports, outputs, weights,
        plugin_ops={"Mamba2Mixer": count}, plugin_creators={"Mamba2Mixer": creator},
    )  # fmt: skip


def _values(ports: tuple[Port, ...] | list[Port]) -> str:
    types = {"float32": "float"}
    dims = (", ".join(map(str, port.shape)) for port in ports)
    return ", ".join(f'{types.get(p.dtype, p.dtype)}[{d}] "{p.name}"' for p, d in zip(ports, dims, strict=True))


def _node(i: int, sizes: str) -> str:
    inputs = ["projected", "cw", "cb", "a", "d", "b", "n", "length", "conv_state", "ssm_state"]
    names = ", ".join(f'"{name}.{i}"' if name != "length" else '"length"' for name in inputs)
    return f'"y.{i}", "conv_state_out.{i}", "ssm_state_out.{i}" = elastic.Mamba2Mixer<{sizes}>({names})'
