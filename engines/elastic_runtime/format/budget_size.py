"""What the memory of a sub-model depends on, as a manifest records it and a plan estimates it.

Only figures: fit/vram.py reckons with them, and both the manifest's reader and the exporter make them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Activation:
    """Activation memory of an engine, bytes; measured on a card (or read from its builder's log), or estimated
    before. An estimate grows by `per_context_token` bytes with every token of max_context, from `least` upwards; an
    engine has one context.
    """

    bytes: int
    measured: bool = False
    per_context_token: int = 0
    least: int = 0

    def at(self, context: int) -> int:
        """Bytes at a max_context of `context` tokens."""
        return max(self.bytes + self.per_context_token * context, self.least)


@dataclass(frozen=True)
class BudgetSize:
    """What the memory of a sub-model depends on. Bytes; state per sequence, KV per token of a sequence."""

    name: str
    parameters: int
    weight_bytes: int
    state_bytes: int
    kv_bytes_per_token: int
    activation: Activation
