"""What a Nemotron-H model is, in numbers: the one description that every stage reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

LayerKind = Literal["M", "-", "*"]


@dataclass(frozen=True)
class Architecture:
    """Widths of a hybrid model, parent or sub-model.

    `pattern` has one character a layer: `M` Mamba-2, `-` MLP, `*` attention. Widths that may differ by layer are
    tuples indexed by the ordinal of that layer kind: `ffn_sizes[k]` belongs to the k-th `-`, `mamba_heads[k]` to the
    k-th `M`. Symbols in formulas: V vocabulary, d hidden, f ffn, H heads, P head dim, g groups, N state, k conv width.
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

    def layers(self) -> Iterator[tuple[int, LayerKind, int]]:
        """(layer index, kind, ordinal of that kind), in order."""
        ordinals = {"M": 0, "-": 0, "*": 0}
        for index, kind in enumerate(self.pattern):
            yield index, kind, ordinals[kind]  # type: ignore[misc]  # the pattern's letters are checked where it is read
            ordinals[kind] += 1

    def inner_size(self, ordinal: int) -> int:
        """di = H·P of the ordinal-th Mamba layer."""
        return self.mamba_heads[ordinal] * self.mamba_head_dim

    def conv_channels(self, ordinal: int) -> int:
        """di + 2gN: the channels x | B | C of the ordinal-th Mamba layer's convolution."""
        return self.inner_size(ordinal) + 2 * self.ssm_groups * self.ssm_state

    def projected_size(self, ordinal: int) -> int:
        """2di + 2gN + H: rows z | x | B | C | dt of the ordinal-th Mamba layer's in_proj."""
        return self.inner_size(ordinal) + self.conv_channels(ordinal) + self.mamba_heads[ordinal]

    def tensor_shapes(self, prefix: str = "backbone") -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of a checkpoint of this model, in the order of the data's way."""
        d, shapes = self.hidden_size, dict[str, tuple[int, ...]]()
        shapes[f"{prefix}.embeddings.weight"] = (self.vocab_size, d)
        for index, kind, ordinal in self.layers():
            shapes[f"{prefix}.layers.{index}.norm.weight"] = (d,)
            for name, shape in self._mixer_shapes(kind, ordinal).items():
                shapes[f"{prefix}.layers.{index}.mixer.{name}"] = shape
        shapes[f"{prefix}.norm_f.weight"] = (d,)
        shapes["lm_head.weight"] = (self.vocab_size, d)
        return shapes

    def _mixer_shapes(self, kind: LayerKind, ordinal: int) -> dict[str, tuple[int, ...]]:
        d = self.hidden_size
        if kind == "M":
            di, dc, heads = self.inner_size(ordinal), self.conv_channels(ordinal), self.mamba_heads[ordinal]
            return {
                "in_proj.weight": (self.projected_size(ordinal), d),
                "conv1d.weight": (dc, 1, self.conv_kernel),
                "conv1d.bias": (dc,),
                "A_log": (heads,),
                "D": (heads,),
                "dt_bias": (heads,),
                "norm.weight": (di,),
                "out_proj.weight": (d, di),
            }
        if kind == "-":
            f = self.ffn_sizes[ordinal]
            return {"up_proj.weight": (f, d), "down_proj.weight": (d, f)}
        q, kv = self.attention_heads * self.attention_head_dim, self.kv_heads * self.attention_head_dim
        return {
            "q_proj.weight": (q, d),
            "k_proj.weight": (kv, d),
            "v_proj.weight": (kv, d),
            "o_proj.weight": (d, q),
        }

    def parameters(self) -> int:
        """Total parameters by the closed form 2Vd + d + ΣMam + nA·Att + Σ(2df + d); equals the sum over the shapes."""
        d, g, n, k = self.hidden_size, self.ssm_groups, self.ssm_state, self.conv_kernel
        total = 2 * self.vocab_size * d + d
        for heads in self.mamba_heads:
            di = heads * self.mamba_head_dim
            total += d * (2 * di + 2 * g * n + heads) + (di + 2 * g * n) * (k + 1) + 3 * heads + di + di * d + d
        q, kv = self.attention_heads * self.attention_head_dim, self.kv_heads * self.attention_head_dim
        total += self.pattern.count("*") * (2 * d * q + 2 * d * kv + d)
        return total + sum(2 * d * f + d for f in self.ffn_sizes)

    def state_bytes(self, itemsize: int) -> int:
        """Bytes of conv state (model dtype of `itemsize` bytes) and SSM state (float32) of one sequence."""
        conv = sum((self.conv_kernel - 1) * self.conv_channels(i) for i in range(len(self.mamba_heads)))
        return itemsize * conv + 4 * sum(h * self.mamba_head_dim * self.ssm_state for h in self.mamba_heads)

    def kv_bytes_per_token(self, itemsize: int) -> int:
        """Bytes of keys and values that one token of one sequence adds, over all attention layers."""
        return 2 * self.pattern.count("*") * self.kv_heads * self.attention_head_dim * itemsize
