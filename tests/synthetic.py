"""Synthetic checkpoints beyond the demo's: random architectures and budgets, any dtype and naming, the shapes of the
published models, and a way to write a checkpoint of any size that takes no disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from elastic_export.checkpoint import synthetic
from elastic_export.checkpoint.budgets import FILE_NAME, FORMAT, budgets_document
from elastic_export.checkpoint.config import config_document
from elastic_export.checkpoint.json_files import write_json
from elastic_export.checkpoint.synthetic import shard_plan, write_index
from elastic_export.dtypes import DTYPES as MODEL_DTYPES
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_runtime.format.safetensors import encode_header, itemsize

Budgets = Iterable[Budget] | Mapping[str, Any]

#: Shapes of the published models: Nemotron-Nano-12B-v2, the elastic parent's shape, and Nemotron-Nano-9B-v2.
NANO_12B = Architecture(
    pattern="M-M-M-M*-" * 6 + "M-M-M-M-",
    vocab_size=131072,
    hidden_size=5120,
    ffn_sizes=(20480,) * 28,
    mamba_heads=(128,) * 28,
    mamba_head_dim=80,
    ssm_groups=8,
    ssm_state=128,
    conv_kernel=4,
    attention_heads=40,
    kv_heads=8,
    attention_head_dim=128,
    epsilon=1e-5,
    time_step_limit=(0.0, math.inf),
)
NANO_9B = Architecture(
    pattern="M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-",
    vocab_size=131072,
    hidden_size=4480,
    ffn_sizes=(15680,) * 25,
    mamba_heads=(128,) * 27,
    mamba_head_dim=80,
    ssm_groups=8,
    ssm_state=128,
    conv_kernel=4,
    attention_heads=40,
    kv_heads=8,
    attention_head_dim=128,
    epsilon=1e-5,
    time_step_limit=(0.0, math.inf),
)

#: Budgets for NANO_12B as a file would hold them: every kind of key once. The widths are illustrations, of no paper.
BUDGETS_12B: dict[str, Any] = {
    "format": FORMAT,
    "budgets": {
        "12b": {},
        "9b": {
            "hidden_size": 4480,
            "intermediate_size": 17920,
            "mamba_num_heads": 112,
            "skip_layers": [54, 55, 56, 57],
        },
        "6b": {
            "hidden_size": 3584,
            "intermediate_size": [12288] * 4 + [10752] * 20 + [12288] * 4,
            "mamba_num_heads": 96,
            "mamba_head_dim": 64,
            "num_attention_heads": 32,
            "skip_layers": [18, 19, 36, 37, 54, 55, 56, 57],
        },
    },
}


def random_architecture(rng: np.random.Generator) -> Architecture:
    """A small model with awkward numbers: head sizes that are no powers of two, FFN widths no multiples of 8.

    3 to 9 layers, one of each kind most of the time; groups 1 to 4, heads per group 1 to 6, state 4 to 32, k 2 to 4,
    KV heads 1 to 4 with 1 to 4 queries each, vocabulary 61 to 300. FFN and Mamba widths are the same in all layers.
    """
    layers = int(rng.integers(3, 10))
    pattern = list(rng.choice(["M", "-", "*"], size=layers, p=[0.45, 0.35, 0.2]))
    if rng.random() < 0.85:
        for place, kind in zip(rng.permutation(layers)[:3], "M-*", strict=True):
            pattern[place] = kind
    groups, kv_heads = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    ffn = int(rng.integers(20, 121))
    return Architecture(
        pattern="".join(pattern),
        vocab_size=int(rng.integers(61, 301)),
        hidden_size=int(rng.integers(16, 97)),
        ffn_sizes=(ffn + (ffn % 8 == 0),) * pattern.count("-"),
        mamba_heads=(groups * int(rng.integers(1, 7)),) * pattern.count("M"),
        mamba_head_dim=int(rng.choice([8, 12, 20, 24, 40])),
        ssm_groups=groups,
        ssm_state=int(rng.integers(4, 33)),
        conv_kernel=int(rng.integers(2, 5)),
        attention_heads=kv_heads * int(rng.integers(1, 5)),
        kv_heads=kv_heads,
        attention_head_dim=int(rng.choice([8, 16, 20, 32])),
        epsilon=float(rng.choice([1e-5, 1e-6, 1e-3])),
        time_step_limit=(0.0, math.inf) if rng.random() < 0.7 else (0.002, 0.5),
    )


def random_budget(arch: Architecture, rng: np.random.Generator, name: str = "random") -> Budget:
    """A budget of `arch`: every key is left alone, set, or varied by layer, at random; one layer at least is kept."""
    ffn = _random_widths(rng, arch.ffn_sizes, 1)
    heads = _random_widths(rng, arch.mamba_heads, arch.ssm_groups)
    layers = len(arch.pattern)
    skipped = rng.permutation(layers)[: int(rng.integers(0, layers)) if rng.random() < 0.6 else 0].tolist()
    return Budget(
        name=name,
        hidden_size=_random_width(rng, arch.hidden_size, 1),
        ffn_sizes=ffn,
        mamba_heads=heads,
        mamba_head_dim=_random_width(rng, arch.mamba_head_dim, 1),
        attention_heads=_random_width(rng, arch.attention_heads, arch.kv_heads),
        skip_layers=tuple(sorted(skipped)),
    )


def _random_width(rng: np.random.Generator, most: int, step: int) -> int:
    """The whole width one time in three, else a multiple of `step` from a third of it up."""
    steps = most // step
    return most if rng.random() < 1 / 3 else step * int(rng.integers(max(1, steps // 3), steps + 1))


def _random_widths(rng: np.random.Generator, most: tuple[int, ...], step: int) -> tuple[int, ...]:
    if rng.random() < 0.5:
        return tuple(_random_width(rng, width, step) for width in most)
    same = _random_width(rng, min(most, default=step), step)
    return (same,) * len(most)


def write_checkpoint(
    directory: Path,
    arch: Architecture,
    weights: Mapping[str, np.ndarray],
    budgets: Budgets | None = None,
    dtype: str = "bf16",
    shards: int = 1,
    prefix: str = "backbone",
    fp32_vectors: bool = False,
    wide: tuple[str, ...] = (),
) -> Path:
    """Write config, weights and budgets as a Hugging Face checkpoint folder; returns the folder.

    Args:
        directory: made if need be.
        arch: what the weights are of.
        weights: by name, with any of the prefixes.
        budgets: budgets, or a whole `elastic-budgets/1` document; None writes no budget file.
        dtype: `bf16`, `fp16` or `fp32`, of all tensors.
        shards: 1 gives `model.safetensors`, more an index.
        prefix: first word of the tensors' names in the file.
        fp32_vectors: keep A_log, D and dt_bias in FP32, as some checkpoints do.
        wide: how the names of other tensors end that are kept so.
    """
    by_suffix = {_without_prefix(name): array for name, array in weights.items()}
    kept_wide = (*wide, *((".A_log", ".D", ".dt_bias") if fp32_vectors else ()))
    tensors = {
        name: by_suffix[_without_prefix(name)].astype(MODEL_DTYPES["fp32" if name.endswith(kept_wide) else dtype].numpy)
        for name in arch.tensor_shapes(prefix)
    }
    synthetic.write_checkpoint(directory, arch, tensors, shards)
    _write_budgets(directory, arch, budgets)
    return directory


def write_sparse_checkpoint(
    directory: Path, arch: Architecture = NANO_12B, budgets: Budgets = BUDGETS_12B, shards: int = 5
) -> Path:
    """A BF16 checkpoint whose headers are right and whose data are holes: any size, no disk, no time. All zeros."""
    shapes = arch.tensor_shapes()
    sizes = {name: math.prod(shape) * itemsize("bf16") for name, shape in shapes.items()}
    plan = shard_plan(sizes, shards)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", config_document(arch) | {"torch_dtype": MODEL_DTYPES["bf16"].full})
    for file, names in plan.items():
        header, entries = encode_header({name: ("bf16", shapes[name]) for name in names}, {"format": "pt"})
        with (directory / file).open("wb") as out:
            out.write(header)
            out.truncate(max(entry.offset + entry.nbytes for entry in entries.values()))
    write_index(directory, plan, sum(sizes.values()))
    _write_budgets(directory, arch, budgets)
    return directory


def _write_budgets(directory: Path, arch: Architecture, budgets: Budgets | None) -> None:
    if budgets is not None:
        document = budgets if isinstance(budgets, Mapping) else budgets_document(arch, budgets)
        write_json(directory / FILE_NAME, document)


def _without_prefix(name: str) -> str:
    return name if name == "lm_head.weight" else name.split(".", 1)[1]
