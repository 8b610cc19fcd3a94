"""How much GPU memory a budget needs: the one function that `choose`, the manifest and the exporter use.

    VRAM = weights + batch x (state + KV x context) + activation memory of the larger profile + reserve

`context` is the engine's max_context: its caches are allocated whole, however short the prompt. Where an engine gives
the logits of every token, the activation memory holds their buffer too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elastic_runtime.errors import InputError
from elastic_runtime.fit.targets import Target
from elastic_runtime.format.budget_size import Activation, BudgetSize
from elastic_runtime.format.records import MAX_INT

GIB = 1 << 30
RESERVE_BYTES = 6 * GIB // 10  # CUDA context, TensorRT's own buffers, fragmentation


@dataclass(frozen=True)
class VramNeed:
    """The reckoning, bytes. `states` and `caches` are those of all `batch` sequences."""

    context: int
    batch: int
    weights: int
    states: int
    caches: int
    activation: int
    activation_measured: bool
    reserve: int
    total: int

    def text(self) -> str:
        """One line: every term and the sum, GiB."""
        scratch = "measured" if self.activation_measured else "estimated"
        terms = (
            f"weights {gib(self.weights)}",
            f"states {gib(self.states)}",
            f"caches {gib(self.caches)} at {self.context} tokens x {self.batch}",
            f"scratch {gib(self.activation)} ({scratch})",
            f"reserve {gib(self.reserve)}",
        )
        return f"{' + '.join(terms)} = {gib(self.total)} GiB"


def vram_needed(size: BudgetSize, *, context: int, batch: int = 1) -> VramNeed:
    """The memory of one budget with caches of `context` tokens for `batch` sequences (formula: module docstring).

    Raises:
        InputError: context or batch below 1.
    """
    for subject, value in (("context", context), ("batch", batch)):
        check_count(subject, value)
    states, caches = batch * size.state_bytes, batch * size.kv_bytes_per_token * context
    scratch, measured = size.activation.at(context), size.activation.measured
    total = size.weight_bytes + states + caches + scratch + RESERVE_BYTES
    return VramNeed(context, batch, size.weight_bytes, states, caches, scratch, measured, RESERVE_BYTES, total)


def check_count(subject: str, value: int) -> None:
    """Raise InputError about tokens, rows or bytes below 1, or too many for any reckoning."""
    if value < 1:
        raise InputError(subject, expected="at least 1", found=str(value), todo="name a larger one")
    if value > MAX_INT:
        raise InputError(subject, expected=f"at most {MAX_INT}", found="more", todo="name a smaller one")


@dataclass(frozen=True)
class AttentionShape:
    """Attention of a model whose engine is estimated; `fused` where the builder has a kernel for it, `itemsize` of its
    caches in bytes.
    """

    query_heads: int
    kv_heads: int
    head_dim: int
    itemsize: int
    fused: bool

    def scratch(self, max_tokens: int) -> int:
        """Bytes per row of a cache that one layer takes in prefill; the layers take turns.

        Fused: keys and values expanded to all query heads, and the mask. Explicit: the scores twice in float32, the
        keys transposed and, where the caches are narrow, both of them in float32.
        """
        if self.fused:
            return 2 * self.query_heads * self.head_dim * self.itemsize + 2 * max_tokens
        copies = 1 if self.itemsize == 4 else 3
        return 8 * self.query_heads * max_tokens + 4 * copies * self.kv_heads * self.head_dim


def estimate_activation(
    widest: int,
    *,
    max_tokens: int,
    max_batch: int = 1,
    attention: AttentionShape | None = None,
    mixer: int = 0,
    logits: int = 0,
) -> Activation:
    """Activation memory of the larger profile before there is an engine to ask.

    25 MB, three float32 copies of the widest intermediate, and what attention takes for each row of the cache: the 12B
    (widest 22656, 40 query heads of 128) gives 267 MB at a context of 8192 and 439 MB at 16384 for 256 tokens, where
    its TensorRT-RTX build logs 246 and 418 MB with native mixers, 219 and 394 MB with plugins.

    Args:
        widest: channels of the widest tensor between two layers, normally a Mamba layer's in_proj rows or an FFN.
        max_tokens: tokens of a call.
        max_batch: sequences of a call.
        attention: of its attention layers; None without any.
        mixer: bytes that a Mamba layer takes besides; attention, with which it takes turns, may take as much.
        logits: bytes that the logits of every token take besides.
    """
    per_row = 0 if attention is None else attention.scratch(max_tokens)
    rows = 25_000_000 + 12 * widest * max_tokens * max_batch + logits
    return Activation(rows, per_context_token=per_row * max_batch, least=rows + mixer)


def bandwidth_floor(size: BudgetSize, target: Target, *, context: int, batch: int = 1) -> float | None:
    """Tokens a second of one sequence that no engine can exceed: each step reads weights and caches, reads and
    writes states.
    """
    if target.bandwidth_gbs is None:
        return None
    moved = size.weight_bytes + batch * (2 * size.state_bytes + size.kv_bytes_per_token * context)
    return target.bandwidth_gbs * 1e9 / moved


def unfit(sizes: Sequence[BudgetSize], target: Target, *, context: int, batch: int = 1) -> list[str]:
    """Names of the budgets that do not fit `target`; none for a portable target, which is no one card."""
    limit = target.usable_bytes
    if limit is None:
        return []
    return [size.name for size in sizes if vram_needed(size, context=context, batch=batch).total > limit]


def gib(count: int) -> str:
    """Bytes as GiB with one decimal (two below 0.1)."""
    return f"{count / GIB:.1f}" if count >= 0.1 * GIB or count == 0 else f"{count / GIB:.2f}"
