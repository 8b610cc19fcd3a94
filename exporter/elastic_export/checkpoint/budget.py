"""One budget: which prefix of every elastic axis a nested sub-model keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace

from elastic_export.checkpoint.architecture import Architecture


@dataclass(frozen=True)
class Budget:
    """Kept widths of one sub-model, complete (an absent key of the file has become the parent's value) and valid.

    `ffn_sizes` and `mamba_heads` are indexed by the ordinal of the layer kind *in the parent* and cover skipped layers
    too. Head counts are totals; the kept heads are the first ones inside every SSM group (or KV group).
    `skip_layers` holds parent layer indices, ascending.
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
        return cls(
            name,
            parent.hidden_size,
            parent.ffn_sizes,
            parent.mamba_heads,
            parent.mamba_head_dim,
            parent.attention_heads,
            (),
        )

    def kept_layers(self, parent: Architecture) -> tuple[int, ...]:
        """Parent indices of the layers that stay, ascending."""
        return tuple(i for i in range(len(parent.pattern)) if i not in self.skip_layers)

    def architecture(self, parent: Architecture) -> Architecture:
        """The sub-model's own architecture, its layers renumbered."""
        kept = [(i, kind, k) for i, kind, k in parent.layers() if i not in self.skip_layers]
        return replace(
            parent,
            pattern="".join(kind for _, kind, _ in kept),
            hidden_size=self.hidden_size,
            ffn_sizes=tuple(self.ffn_sizes[k] for _, kind, k in kept if kind == "-"),
            mamba_heads=tuple(self.mamba_heads[k] for _, kind, k in kept if kind == "M"),
            mamba_head_dim=self.mamba_head_dim,
            attention_heads=self.attention_heads,
        )
