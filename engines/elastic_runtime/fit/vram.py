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
from elastic_runtime.format.budget_size import BudgetSize
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
