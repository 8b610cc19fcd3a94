"""What a consumer of an exported model may rely on and must do; every manifest carries these sentences."""

from __future__ import annotations

RULES: tuple[str, ...] = (
    "A new sequence: all states zero, position 0. A prompt longer than max_tokens is fed in several calls; how it was "
    "cut does not matter.",
    "position + T <= S (max_context) for every row, padding included: shorten the last call, do not pad past the end.",
    "length is how many of the T tokens of a row are real, 0..T. A row with length 0 keeps its conv and SSM state bit "
    "for bit; its logits are unspecified.",
    "Tokens past length leave conv and SSM state untouched. Cache rows at and past position + length are unspecified "
    "and overwritten by the next call.",
    "logits are those of the last real token of each row (option logits = last) or of every token (all).",
    "Every state output names its input and an alias rule. must: both are bound to one buffer. must_not: they are "
    "bound to two buffers, swapped after each call. onnxruntime copies, whatever the rule.",
    "Bindings of an engine are linear device memory, 256-byte aligned, position and length included.",
    "Engine profile 0: T = 1. Profile 1: 1 <= T <= max_tokens, optimised at max_tokens. B from 1 to max_batch in both.",
    "With shared or sliced weights every weight is a further input, named by its tensor in the parent checkpoint, in "
    "the layout, orientation and dtype that weights.json gives.",
)
