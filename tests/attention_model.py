"""Models of attention layers alone, as the exporter emits them: the op as a local function over caches in place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.parser

from elastic_export.engine.request import EngineRequest
from elastic_export.ops.cached_attention.body import function as attention_function
from elastic_export.opset import OPSET
from elastic_runtime.format.interface import OpsMode, Port, Precision, StatePort

CREATOR = "elastic_export.ops.cached_attention.creator:create"
_NAMES: dict[str, Precision] = {"bfloat16": "bf16", "float16": "fp16", "float": "fp32"}


@dataclass(frozen=True)
class Attention:
    """Sizes of one layer; `dtype` as ONNX text spells it."""

    heads: int = 4
    kv: int = 2
    head_dim: int = 32
    dtype: str = "bfloat16"
    fused: bool = True

    @property
    def full(self) -> str:
        """The dtype as ports spell it."""
        return "float32" if self.dtype == "float" else self.dtype

    def ports(self, i: int) -> tuple[Port, ...]:
        """Activations and caches of layer i."""
        new, cache = ("B", "T", self.kv * self.head_dim), ("B", self.kv, "S", self.head_dim)
        return (
            Port(f"query.{i}", self.full, ("B", "T", self.heads * self.head_dim)),
            Port(f"key.{i}", self.full, new),
            Port(f"value.{i}", self.full, new),
            StatePort(f"key_cache.{i}", self.full, cache, "key_cache", i),
            StatePort(f"value_cache.{i}", self.full, cache, "value_cache", i),
        )


def attention_model(attention: Attention, count: int = 1) -> onnx.ModelProto:
    """A model of `count` layers that share nothing but the position."""
    ports = (Port("position", "int64", ("B",)), *(port for i in range(count) for port in attention.ports(i)))
    states = [Port(p.output, p.dtype, p.shape) for p in ports if isinstance(p, StatePort)]
    wide = ("B", "T", attention.heads * attention.head_dim)
    outputs = [Port(f"y.{i}", attention.full, wide) for i in range(count)]
    scale = 1 / math.sqrt(attention.head_dim)
    sizes = f"num_heads = {attention.heads}, num_key_value_heads = {attention.kv}, head_dim = {attention.head_dim}"
    nodes = "\n".join(
        f'"y.{i}", "key_cache_out.{i}", "value_cache_out.{i}" = elastic.CachedAttention<{sizes}, scale = {scale:.9f}>('
        f'"query.{i}", "key.{i}", "value.{i}", "key_cache.{i}", "value_cache.{i}", "position")'
        for i in range(count)
    )
    signature = f"m ({_values(ports)}) => ({_values([*outputs, *states])})"
    model = onnx.parser.parse_model(
        f'<ir_version: 11, opset_import: ["": {OPSET}, "elastic": 1]>\n{signature} {{\n{nodes}\n}}'
    )
    model.functions.append(attention_function(OPSET, fused=attention.fused))
    return model


def attention_request(
    folder: Path,
    *,
    attention: Attention | None = None,
    ops: OpsMode = "plugin",
    context: int = 16384,
    creator: str = CREATOR,
    count: int = 1,
) -> EngineRequest:
    """Writes such a model to `folder` and asks for an SM120 engine of it."""
    attention = attention or Attention()
    path = folder / "attention.onnx"
    onnx.save(attention_model(attention, count), path)
    plugin = ops == "plugin"
    return EngineRequest(
        onnx=path,
        output=folder / "attention.engine",
        compute_capabilities=("SM120",),
        precision=_NAMES[attention.dtype],
        max_tokens=256,
        max_context=context,
        max_batch=1,
        ops=ops,
        ports=(Port("position", "int64", ("B",)), *(port for i in range(count) for port in attention.ports(i))),
        outputs=tuple(
            Port(f"y.{i}", attention.full, ("B", "T", attention.heads * attention.head_dim)) for i in range(count)
        ),
        plugin_ops={"CachedAttention": count} if plugin else {},
        plugin_creators={"CachedAttention": creator} if plugin else {},
    )


def _values(ports: tuple[Port, ...] | list[Port]) -> str:
    dims = (", ".join(map(str, port.shape)) for port in ports)
    return ", ".join(
        f'{"float" if p.dtype == "float32" else p.dtype}[{d}] "{p.name}"' for p, d in zip(ports, dims, strict=True)
    )
