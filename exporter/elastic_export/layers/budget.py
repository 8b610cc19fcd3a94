"""One budget: which prefix of every elastic axis a nested sub-model keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from elastic_export.layers.all_kinds import ELASTIC_AXES, KIND_OF_AXIS
from elastic_export.layers.architecture import Architecture, Layer
from elastic_export.layers.axis import Axis


@dataclass(frozen=True)
class Budget:
    """Kept widths of one sub-model, complete (an absent key of the file has become the parent's value) and valid.

    Its fields are the elastic axes of `all_kinds`, named as in `Architecture`. Widths by layer are indexed by the
    ordinal of the layer kind *in the parent* and cover skipped layers too. Head counts are totals; the kept heads are
    the first ones inside every SSM group (or KV group). `skip_layers` holds parent layer indices, ascending.
    """

    name: str
    hidden_size: int
    ffn_sizes: tuple[int, ...]
    mamba_heads: tuple[int, ...]
    mamba_head_dim: int
    attention_heads: int
    skip_layers: tuple[int, ...]

    @classmethod
    def full(cls, parent: Architecture, name: str) -> Budget:
        """The budget that keeps everything."""
        return cls(name, skip_layers=(), **{axis.field: getattr(parent, axis.field) for axis in ELASTIC_AXES})

    def kept_layers(self, parent: Architecture) -> tuple[int, ...]:
        """Parent indices of the layers that stay, ascending."""
        return tuple(i for i in range(len(parent.pattern)) if i not in self.skip_layers)

    def architecture(self, parent: Architecture) -> Architecture:
        """The sub-model's own architecture, its layers renumbered."""
        skipped = set(self.skip_layers)
        kept = [layer for layer in parent.layers() if layer.index not in skipped]
        widths = {axis.field: self._kept_widths(axis, kept) for axis in ELASTIC_AXES}
        return replace(parent, pattern="".join(layer.kind.letter for layer in kept), **widths)

    def _kept_widths(self, axis: Axis, kept: Sequence[Layer]) -> Any:
        """The sub-model's value of an axis: without the entries of skipped layers where it has one a layer."""
        widths = getattr(self, axis.field)
        if not axis.per_layer:
            return widths
        kind = KIND_OF_AXIS[axis]
        return tuple(widths[layer.ordinal] for layer in kept if layer.kind is kind)
