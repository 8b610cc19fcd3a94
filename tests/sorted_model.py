"""A small checkpoint whose best budgets are known: some of it does nothing, and its axes are sorted by what they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from elastic_export.checkpoint.json_files import write_json
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.attention import QUERY_HEADS
from elastic_export.layers.axis import Axis, Span
from elastic_export.layers.kind import HIDDEN
from elastic_export.layers.mamba2 import HEAD_DIM, HEADS
from elastic_export.layers.mlp import FFN
from random_demo import byte_tokenizer
from small_checkpoint import PARENT
from synthetic import write_checkpoint

ARCH = replace(
    PARENT,
    pattern="M-*M-M-*-",
    vocab_size=264,
    hidden_size=64,
    ffn_sizes=(128,) * 4,
    mamba_heads=(8,) * 3,
    mamba_head_dim=16,
    attention_heads=8,
    attention_head_dim=16,
)
_SORTED = (HIDDEN, FFN, HEADS, HEAD_DIM, QUERY_HEADS)
#: Of the FFNs' channels so many do something, and these layers nothing.
FFN_USED, IDLE = 64, (4, 7)


def write_sorted(
    folder: Path, change: Callable[[dict[str, Any]], None] = lambda weights: None, *, falling: bool = True
) -> Path:
    """Write it without budgets; where not `falling`, channels are worth what chance gave them."""
    rng = np.random.default_rng(5)
    weights = dict(random_weights(ARCH, rng))
    weights["lm_head.weight"] = 8 * weights["lm_head.weight"]  # else all tokens are about as likely
    if falling:
        for stored in ARCH.tensors():
            name = stored.name
            if name.endswith(("up_proj.weight", "o_proj.weight", "out_proj.weight", "embeddings.weight")):
                scale = [_scale(axis, ARCH) for axis in stored.tensor.axes]
                weights[name] = weights[name] * scale[0][:, None] * scale[1][None, :]
        for layer in ARCH.layers():
            lead = f"backbone.layers.{layer.index}.mixer"
            if layer.kind.letter == "-":
                weights[f"{lead}.down_proj.weight"][:, FFN_USED:] = 0
        for layer in IDLE:
            last = {"-": "down_proj", "M": "out_proj", "*": "o_proj"}[ARCH.pattern[layer]]
            weights[f"backbone.layers.{layer}.mixer.{last}.weight"][:] = 0
    change(weights)
    write_checkpoint(folder, ARCH, weights, None)
    write_json(folder / "tokenizer.json", byte_tokenizer())
    return folder


def _scale(axis: tuple[Span, ...], arch: Architecture) -> np.ndarray[Any, Any]:
    """Falling along hidden channels, neurons, heads of a group and channels of a head."""
    [span], found = axis, np.ones(1)
    for factor in span:
        assert isinstance(factor, Axis)
        part = _falling(factor.of(arch), factor.step(arch)) if factor in _SORTED else np.ones(factor.of(arch))
        found = np.outer(found, part).reshape(-1)
    return found


def _falling(size: int, groups: int) -> np.ndarray[Any, Any]:
    return np.tile(np.linspace(1.5, 0.2, size // groups), groups)
