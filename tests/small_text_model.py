"""A small checkpoint with a tokenizer of bytes and three budgets, and a text to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from elastic_export.checkpoint.json_files import write_json
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.budget import Budget
from random_demo import byte_tokenizer
from small_checkpoint import PARENT
from synthetic import write_checkpoint

ARCH = replace(PARENT, vocab_size=264)
FULL = Budget.full(ARCH, "full")
#: The first cuts every axis; the second has one width for all layers of a kind, as other tools know models.
SMALL = Budget("small", 20, (30, 21, 37), (4, 6, 2), 7, 4, (3, 7))
EVEN = Budget("even", 16, (25,) * 3, (4,) * 3, 10, 4, (2,))
#: Kept in float32 by the checkpoint, and taken in the model's dtype all the same.
WIDE = (".mixer.conv1d.weight", ".mixer.norm.weight")
TEXT = "Ein Satz, zwei Sätze; 三つ目の文 – und so weiter.\n\tA line with 😀 in it, then some more of the same.\n" * 3


def write_source(
    folder: Path, change: Callable[[dict[str, Any]], None] = lambda weights: None, *, plain: bool = False
) -> Path:
    """Write it; `change` may spoil the weights before, and a `plain` one is in one dtype."""
    weights = dict(random_weights(ARCH, np.random.default_rng(11)))
    weights["lm_head.weight"] = 8 * weights["lm_head.weight"]  # else all tokens are about as likely
    change(weights)
    wide = () if plain else WIDE
    write_checkpoint(folder, ARCH, weights, [FULL, SMALL, EVEN], shards=2, fp32_vectors=not plain, wide=wide)
    write_json(folder / "tokenizer.json", byte_tokenizer())
    return folder
