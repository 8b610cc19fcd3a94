"""The interface of an exported model: the tensors that ONNX file and engine take and give, written once.

B batch, T tokens of this call, S max_context. Shapes hold ints and these three symbols.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["bf16", "fp16", "fp32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
#: What a weight may be stored in.
StoredDtype = Literal["bf16", "fp16", "fp32", "int8"]
Alias = Literal["must", "must_not"]
OpsMode = Literal["plugin", "native"]
StateKind = Literal["conv_state", "ssm_state", "key_cache", "value_cache"]
Dim = int | Literal["B", "T", "S"]

#: Whether a state's output shares the buffer of its input in an engine, by kind and ops mode.
ALIAS_RULES: dict[StateKind, dict[OpsMode, Alias]] = {
    "conv_state": {"plugin": "must_not", "native": "must_not"},
    "ssm_state": {"plugin": "must", "native": "must_not"},
    "key_cache": {"plugin": "must", "native": "must"},
    "value_cache": {"plugin": "must", "native": "must"},
}


@dataclass(frozen=True)
class Port:
    """One tensor of the interface. `dtype` is `int64`, `float32`, `float16` or `bfloat16`; of a weight
    `int8` too."""

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


def shape_text(shape: Iterable[Dim]) -> str:
    """`[B, T, 131072]`, for people."""
    return f"[{', '.join(map(str, shape))}]"


def logits_port(vocab_size: int, *, every_token: bool) -> Port:
    """`logits`: float32 [B, V] of the last real token, or [B, T, V]."""
    return Port("logits", "float32", ("B", "T", vocab_size) if every_token else ("B", vocab_size))
