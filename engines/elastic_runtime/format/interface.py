"""The interface of an exported model: the tensors that ONNX file and engine take and give, written once.

B batch, T tokens of this call, S max_context. Shapes hold ints and these three symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Alias = Literal["must", "must_not"]
OpsMode = Literal["plugin", "native"]
StateKind = Literal["conv_state", "ssm_state", "key_cache", "value_cache"]
Dim = int | str

#: Whether a state's output shares the buffer of its input in an engine, by kind and ops mode.
ALIAS_RULES: dict[StateKind, dict[OpsMode, Alias]] = {
    "conv_state": {"plugin": "must_not", "native": "must_not"},
    "ssm_state": {"plugin": "must", "native": "must_not"},
    "key_cache": {"plugin": "must", "native": "must"},
    "value_cache": {"plugin": "must", "native": "must"},
}


@dataclass(frozen=True)
class Port:
    """One tensor of the interface. `dtype` is `int64`, `float32`, `float16` or `bfloat16`."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class StatePort(Port):
    """A recurrent state or cache: an input of this name and an output of the name `output`."""

    kind: StateKind
    ordinal: int  # among the layers of its kind, in the sub-model

    @property
    def output(self) -> str:
        """Name of the output that carries the new state."""
        return f"{self.kind}_out.{self.ordinal}"

    def alias(self, ops: OpsMode) -> Alias:
        """The alias rule of input and output in an engine of that ops mode."""
        return ALIAS_RULES[self.kind][ops]


def token_ports() -> tuple[Port, ...]:
    """`input_ids`, `position`, `length`."""
    return (Port("input_ids", "int64", ("B", "T")), Port("position", "int64", ("B",)), Port("length", "int64", ("B",)))


def state_ports(
    dtype: str,
    *,
    mamba: Sequence[tuple[int, int, int, int, int]],
    attention: Sequence[tuple[int, int]],
) -> tuple[StatePort, ...]:
    """The states of a model, conv and SSM state of each Mamba layer first, then the caches.

    Args:
        dtype: the model's dtype; SSM states are float32 always.
        mamba: per Mamba layer (conv width k, conv channels di+2gN, heads H, head dim P, state size N).
        attention: per attention layer (KV heads, head dim).
    """
    ports: list[StatePort] = []
    for i, (k, channels, heads, head_dim, state) in enumerate(mamba):
        ports.append(StatePort(f"conv_state.{i}", dtype, ("B", k - 1, channels), "conv_state", i))
        ports.append(StatePort(f"ssm_state.{i}", "float32", ("B", heads, head_dim, state), "ssm_state", i))
    for j, (kv_heads, head_dim) in enumerate(attention):
        shape: tuple[Dim, ...] = ("B", kv_heads, "S", head_dim)
        ports.append(StatePort(f"key_cache.{j}", dtype, shape, "key_cache", j))
        ports.append(StatePort(f"value_cache.{j}", dtype, shape, "value_cache", j))
    return tuple(ports)


def logits_port(vocab_size: int, *, every_token: bool) -> Port:
    """`logits`: float32 [B, V] of the last real token, or [B, T, V]."""
    return Port("logits", "float32", ("B", "T", vocab_size) if every_token else ("B", vocab_size))
