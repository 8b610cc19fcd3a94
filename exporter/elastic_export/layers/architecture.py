"""What a Nemotron-H model is, in numbers: the one description that every stage reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from elastic_export.layers.all_kinds import KIND_OF, KINDS
from elastic_export.layers.axis import Extent, shape_of, size_of
from elastic_export.layers.kind import EMBEDDINGS, FINAL_NORM, HEAD, LAYER_NORM, LayerKind, State, Tensor


class Layer(NamedTuple):
    """A layer: its index in the model, its kind, its ordinal among the layers of that kind."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks a layer for
    kind: LayerKind
    ordinal: int


class Stored(NamedTuple):
    """A tensor of a checkpoint: its full name, what it is, and the layer it belongs to (None: to none)."""

    name: str
    tensor: Tensor
    layer: Layer | None


@dataclass(frozen=True)
class Architecture:
    """Widths of a hybrid model, parent or sub-model.

    `pattern` has one character a layer, a letter of `all_kinds`. Widths that may differ by layer are tuples indexed by
    the ordinal of that layer kind: `ffn_sizes[k]` belongs to the k-th MLP, `mamba_heads[k]` to the k-th Mamba layer.
    Symbols in formulas: V vocabulary, d hidden, f ffn, H heads, P head dim, g groups, N state, k conv width.
    """

    pattern: str
    vocab_size: int
    hidden_size: int
    ffn_sizes: tuple[int, ...]
    mamba_heads: tuple[int, ...]
    mamba_head_dim: int
    ssm_groups: int
    ssm_state: int
    conv_kernel: int
    attention_heads: int
    kv_heads: int
    attention_head_dim: int
    epsilon: float
    time_step_limit: tuple[float, float]

    def layers(self) -> Iterator[Layer]:
        """Every layer, in order."""
        ordinals = dict.fromkeys(KIND_OF, 0)
        for index, letter in enumerate(self.pattern):
            yield Layer(index, KIND_OF[letter], ordinals[letter])
            ordinals[letter] += 1

    def count(self, kind: LayerKind) -> int:
        """Layers of a kind."""
        return self.pattern.count(kind.letter)

    def alike(self) -> Iterator[tuple[LayerKind, int, int]]:
        """(kind, ordinal, how many) of the layers of a kind that are equally wide, by the first of them.

        What is counted over all layers is counted over these: of hundreds there are a few, and a search for budgets
        asks it of thousands of models.
        """
        for kind in KINDS:
            own = [axis for axis in kind.axes if axis.per_layer]
            first: dict[tuple[int, ...], list[int]] = {}
            for ordinal in range(self.count(kind)):
                first.setdefault(tuple(axis.of(self, ordinal) for axis in own), []).append(ordinal)
            yield from ((kind, ordinals[0], len(ordinals)) for ordinals in first.values())

    def size(self, axis: Extent, ordinal: int = 0) -> int:
        """Number of indices of a tensor's axis in the ordinal-th layer of its kind."""
        return size_of(axis, self, ordinal)

    def tensors(self, prefix: str = "backbone") -> Iterator[Stored]:
        """Every tensor of a checkpoint of this model, in the order of the data's way."""
        yield Stored(f"{prefix}.{EMBEDDINGS.name}", EMBEDDINGS, None)
        for layer in self.layers():
            lead = f"{prefix}.layers.{layer.index}"
            yield Stored(f"{lead}.{LAYER_NORM.name}", LAYER_NORM, layer)
            for tensor in layer.kind.tensors:
                yield Stored(f"{lead}.mixer.{tensor.name}", tensor, layer)
        yield Stored(f"{prefix}.{FINAL_NORM.name}", FINAL_NORM, None)
        yield Stored(HEAD.name, HEAD, None)

    def tensor_shapes(self, prefix: str = "backbone") -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor, in the order of the data's way."""
        return {
            stored.name: shape_of(stored.tensor.axes, self, stored.layer.ordinal if stored.layer else 0)
            for stored in self.tensors(prefix)
        }

    def states(self) -> Iterator[tuple[State, Layer]]:
        """Every state and its layer, in the order of the interface: kind by kind, layer by layer."""
        for kind in KINDS:
            for layer in self.layers():
                if layer.kind is kind:
                    yield from ((state, layer) for state in kind.states)

    def parameters(self) -> int:
        """Total parameters: the elements of all tensors."""
        around = sum(self._elements(tensor.axes) for tensor in (EMBEDDINGS, FINAL_NORM, HEAD))
        return around + sum(
            count * self._elements(tensor.axes, ordinal)
            for kind, ordinal, count in self.alike()
            for tensor in (LAYER_NORM, *kind.tensors)
        )

    def state_bytes(self, itemsize: int) -> int:
        """Bytes of the states of fixed size of one sequence, in a model whose dtype has `itemsize` bytes."""
        return sum(
            count * (4 if state.wide else itemsize) * self._elements(state.axes, ordinal)
            for kind, ordinal, count in self.alike()
            for state in kind.states
            if not state.grows
        )

    def kv_bytes_per_token(self, itemsize: int) -> int:
        """Bytes that one token of one sequence adds to the states that grow, over all layers."""
        return sum(
            count * itemsize * self._elements(state.axes, ordinal)
            for kind, ordinal, count in self.alike()
            for state in kind.states
            if state.grows
        )

    def _elements(self, axes: Sequence[Extent | None], ordinal: int = 0) -> int:
        """Of a tensor or a state in the ordinal-th layer of its kind, a position's where it grows."""
        count = 1
        for axis in axes:
            if axis is not None:
                count *= size_of(axis, self, ordinal)
        return count
