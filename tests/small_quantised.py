"""A small parent of every kind of layer, and which of its matrices are in which format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.budget import Budget
from quantised_checkpoint import Kind
from small_checkpoint import PARENT

#: Columns are in whole blocks of 16 everywhere, rows in none; see PATTERN_4B for the layers' places.
ARCH = replace(PARENT, hidden_size=32, ffn_sizes=(48,) * 3, mamba_head_dim=16, attention_heads=4, attention_head_dim=8)
BUDGET = Budget("cut", 16, (32, 48, 16), (4,) * 3, 16, 4, (3,))
WEIGHTS = random_weights(ARCH, np.random.default_rng(11))

#: A matrix in NVFP4, and one in FP8.
IN, UP = "backbone.layers.0.mixer.in_proj", "backbone.layers.1.mixer.up_proj"


def everything(kind: str) -> Kind:
    return lambda module: kind


def mixed(module: str) -> str | None:
    return {"in_proj": "NVFP4", "up_proj": "FP8", "down_proj": "NVFP4", "embeddings": "NVFP4", "lm_head": "FP8"}.get(
        module.rsplit(".", 1)[-1]
    )


#: What is done to the tensors of a file.
Change = Callable[[dict[str, torch.Tensor]], object]


def resave(folder: Path, change: Change) -> None:
    """Writes the one shard of a checkpoint anew."""
    path = folder / "model-00001-of-00001.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
