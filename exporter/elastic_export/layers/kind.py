"""What a layer kind is, and the frame that all layers stand in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from elastic_export.layers.axis import Axis, Extent, extent
from elastic_runtime.format.interface import StateKind

VOCAB: Final = Axis("vocab_size", ("vocab_size",))
HIDDEN: Final = Axis("hidden_size", ("hidden_size",), elastic=True)


@dataclass(frozen=True)
class Tensor:
    """A stored tensor: its name in the checkpoint, after the layer's, and its axes.

    `operand` names the input of the op with a contract that takes it, where one does: the contract then says in which
    dtypes it may arrive.
    """

    name: str
    axes: tuple[Extent, ...]
    operand: str | None = None

    @property
    def is_matrix(self) -> bool:
        """Whether activations are multiplied by it: a linear layer."""
        return len(self.axes) == 2


@dataclass(frozen=True)
class State:
    """What a layer carries from call to call: an input and an output of the model, both [B, *axes].

    An axis of None is the context S, as long as the longest sequence. `wide` states are float32 whatever the model's
    dtype is.
    """

    kind: StateKind
    axes: tuple[Extent | None, ...]
    wide: bool = False

    @property
    def grows(self) -> bool:
        """Whether its size follows the context: a cache, written in place."""
        return None in self.axes


@dataclass(frozen=True)
class Mask:
    """A vector of ones and zeros, an input `mask.<name>.<layer>` of the parent graph, along one extent."""

    name: str
    axis: Extent


@dataclass(frozen=True)
class LayerKind:
    """All that the compiler knows of a kind of layer besides its mathematics (`reference/mixers.py`) and its ops.

    Attributes:
        letter: in the layer pattern.
        noun: with its article, for errors.
        called: the short name that errors number, as in `Mamba layer 3`.
        types: its names in lists of layer types; the first one is written.
        axes: widths that belong to it, those a budget may cut among them.
        tensors: what `layers.<i>.mixer.` holds, in the order of a checkpoint.
        masks: through which a budget switches channels off, in the order of the data's way.
        states: what it carries from call to call.
        joined: matrices that read the same activations and are one where weights are in eight bits: a tensor's name ->
            the name of the whole, whose rows are the members' in the order of `tensors`.
    """

    letter: str
    noun: str
    called: str
    types: tuple[str, ...]
    axes: tuple[Axis, ...]
    tensors: tuple[Tensor, ...]
    masks: tuple[Mask, ...]
    states: tuple[State, ...] = ()
    joined: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def elastic_axes(self) -> tuple[Axis, ...]:
        """The axes that a budget may cut."""
        return tuple(axis for axis in self.axes if axis.elastic)

    @property
    def matrices(self) -> int:
        """Linear layers of one layer."""
        return sum(tensor.is_matrix for tensor in self.tensors)


#: Around the layers: read before the first of them and after the last, and the norm that begins each.
EMBEDDINGS: Final = Tensor("embeddings.weight", (extent(VOCAB), extent(HIDDEN)))
LAYER_NORM: Final = Tensor("norm.weight", (extent(HIDDEN),))
FINAL_NORM: Final = Tensor("norm_f.weight", (extent(HIDDEN),))
HEAD: Final = Tensor("lm_head.weight", (extent(VOCAB), extent(HIDDEN)))
