"""A small elastic model of random weights, the same on every machine.

It has what the real one has: all three layer kinds, several SSM groups, a head size that is no power of two, and
three nested budgets that cut every axis. Its vocabulary is the 256 bytes and a few marks, so it babbles in any script.
The built-in demo is the same with other widths, once it was trained (tests/demo).
"""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from elastic_export.checkpoint.budgets import FILE_NAME, FORMAT
from elastic_export.checkpoint.json_files import write_json
from elastic_export.checkpoint.synthetic import random_weights, write_checkpoint
from elastic_export.dtypes import DTYPES
from elastic_export.layers.architecture import Architecture

NAME = "random-demo"

SPECIAL_TOKENS = ("<|pad|>", "<|eos|>", "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool|>")
PAD, EOS, BOS = 256, 257, 258

ARCHITECTURE = Architecture(
    pattern="M-M*-M-M*-M-",
    vocab_size=256 + len(SPECIAL_TOKENS),
    hidden_size=192,
    ffn_sizes=(448,) * 5,
    mamba_heads=(16,) * 5,
    mamba_head_dim=40,
    ssm_groups=4,
    ssm_state=32,
    conv_kernel=4,
    attention_heads=8,
    kv_heads=4,
    attention_head_dim=32,
    epsilon=1e-5,
    time_step_limit=(0.0, math.inf),
)

BUDGETS: dict[str, Any] = {
    "format": FORMAT,
    "budgets": {
        "large": {},
        "medium": {"hidden_size": 160, "intermediate_size": 360, "mamba_num_heads": 12, "skip_layers": [6]},
        "small": {
            "hidden_size": 112,
            "intermediate_size": [240, 200, 200, 200, 264],
            "mamba_num_heads": [12, 8, 8, 4, 8],
            "mamba_head_dim": 24,
            "num_attention_heads": 4,
            "skip_layers": [5, 6, 8],
        },
    },
}

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

_LICENCE = "The weights of this model are random numbers. They are in the public domain (CC0-1.0).\n"


@cache
def random_demo() -> Path:
    """The checkpoint's folder, made once a process and gone with it. Read-only by agreement."""
    scratch = tempfile.mkdtemp(prefix="random-demo-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return write_demo(Path(scratch) / NAME)


def write_demo(folder: Path) -> Path:
    """Write the checkpoint into a new folder."""
    weights = random_weights(ARCHITECTURE, np.random.Generator(np.random.PCG64(2511)))
    tensors = {name: array.astype(DTYPES["bf16"].numpy) for name, array in weights.items()}
    write_checkpoint(folder, ARCHITECTURE, tensors, shards=2)
    write_json(folder / FILE_NAME, BUDGETS)
    write_json(folder / "tokenizer.json", byte_tokenizer())
    write_json(folder / "tokenizer_config.json", _tokenizer_config())
    generation = {"bos_token_id": BOS, "eos_token_id": [EOS, 256 + SPECIAL_TOKENS.index("<|end|>")]}
    write_json(folder / "generation_config.json", generation | {"pad_token_id": PAD, "do_sample": False})
    (folder / "LICENSE").write_bytes(_LICENCE.encode())
    return folder


def byte_tokenizer() -> dict[str, Any]:
    """`tokenizer.json` of the `tokenizers` library: token i is byte i, then the marks; nothing is merged."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 256 + i, "content": text} | flags for i, text in enumerate(SPECIAL_TOKENS)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {letter: byte for byte, letter in enumerate(_byte_letters())},
            "merges": [],
        },
    }


def _byte_letters() -> list[str]:
    """The letter of each byte in a byte-level vocabulary (GPT-2's table): printable bytes stand for themselves."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "pad_token": "<|pad|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
