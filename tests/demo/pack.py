"""The trained model as a checkpoint in the published layout: what the product ships, and what anybody may export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from elastic_export.checkpoint.budgets import FILE_NAME, FORMAT
from elastic_export.checkpoint.demo import SUMS, sums
from elastic_export.checkpoint.json_files import write_json
from elastic_export.checkpoint.synthetic import write_checkpoint
from elastic_export.dtypes import DTYPES
from elastic_export.layers.architecture import Architecture
from random_demo import CHAT_TEMPLATE, SPECIAL_TOKENS

LICENCE = """The weights were trained on the sources of Python 3.11's standard library, Copyright (c) 2001-2023 Python
Software Foundation; All Rights Reserved, under the PSF licence agreement (https://docs.python.org/3.11/license.html).
They are given under the Apache License, Version 2.0, like the rest of elastic-export.
"""


def write_trained(
    folder: Path,
    arch: Architecture,
    parameters: Mapping[str, Tensor],
    budgets: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    card: str,
) -> Path:
    """Write the checkpoint into a new folder, rounded to bfloat16 once.

    Args:
        folder: made here.
        arch: the parent's.
        parameters: the parent's, float32.
        budgets: as in a budget file.
        tokenizer: its `tokenizer.json`, the marks its last tokens.
        card: what is said of the model, Markdown.
    """
    tensors = {name: parameters[name].detach().numpy().astype(DTYPES["bf16"].numpy) for name in arch.tensor_shapes()}
    write_checkpoint(folder, arch, tensors, shards=1)
    first = arch.vocab_size - len(SPECIAL_TOKENS)
    pad, eos, bos = (first + SPECIAL_TOKENS.index(f"<|{name}|>") for name in ("pad", "eos", "bos"))
    write_json(folder / FILE_NAME, {"format": FORMAT, "budgets": budgets})
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|bos|>",
            "eos_token": "<|eos|>",
            "pad_token": "<|pad|>",
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    generation = {"bos_token_id": bos, "eos_token_id": [eos, first + SPECIAL_TOKENS.index("<|end|>")]}
    # Its most likely text goes round in circles.
    sampled = {"pad_token_id": pad, "do_sample": True, "temperature": 0.7, "top_p": 0.95}
    write_json(folder / "generation_config.json", generation | sampled)
    (folder / "LICENSE").write_text(LICENCE, "utf-8")
    (folder / "README.md").write_text(card, "utf-8")
    (folder / SUMS).write_bytes(sums(folder))
    return folder


def read_tokenizer(file: Path) -> dict[str, Any]:
    """`tokenizer.json` as `train_tokenizer` wrote it."""
    document: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return document
