"""Models that nobody trained: random architectures, weights and budgets, written as checkpoints anybody can load.

The built-in demo and every test of the compile are made of these. Also the shapes of the published models, and a way
to write a checkpoint of any size that takes no disk.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from elastic_export.checkpoint.architecture import Architecture
from elastic_export.checkpoint.budget import Budget
from elastic_export.checkpoint.budgets import FILE_NAME, FORMAT, budgets_document
from elastic_export.checkpoint.config import config_document
from elastic_export.checkpoint.documents import write_json
from elastic_export.checkpoint.precision import FULL_NAMES
from elastic_export.checkpoint.shards import INDEX, SINGLE
from elastic_runtime.safetensors import DTYPES, encode_header, itemsize

Weights = dict[str, np.ndarray[Any, Any]]
Doubles = np.ndarray[Any, np.dtype[np.float64]]

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


def random_weights(arch: Architecture, rng: np.random.Generator, prefix: str = "backbone") -> Weights:
    """Float32 weights under which every layer matters: deleting one moves the logits by 5 % or more.

    Each mixer's output has about the size of half an embedding, whatever the widths; dt lies in 1e-3 … 1e-1 and
    A in 1 … 16, as Mamba-2 initialises them, so states neither vanish nor stand still; norm weights, D and biases
    differ from their neutral values, so that forgetting one shows. Numbers come from the bit stream of `rng` by
    operations that IEEE 754 or the decimal specification round correctly: equal seeds give equal weights with any
    numpy on any machine.
    """
    fans = _Fans(arch)
    return {
        name: fans.tensor(name.rsplit("mixer.", 1)[-1].removeprefix(f"{prefix}."), shape, rng)
        for name, shape in arch.tensor_shapes(prefix).items()
    }


class _Fans:
    """Sizes of random tensors, by the last part of their name."""

    def __init__(self, arch: Architecture) -> None:
        self._arch = arch

    def tensor(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray[Any, Any]:
        if name == "in_proj.weight":
            return self._in_proj(shape, rng)
        if name == "A_log":
            return log_decay(uniform(rng, shape)).astype(np.float32)
        if name == "dt_bias":
            return inverse_softplus_of_step(uniform(rng, shape)).astype(np.float32)
        mean, spread = self._mean_and_spread(name, shape)
        return (mean + spread * normal(rng, shape)).astype(np.float32)

    def _mean_and_spread(self, name: str, shape: tuple[int, ...]) -> tuple[float, float]:
        """Mean and standard deviation; matrices keep the size of a normed input, times a gain."""
        if name.endswith("norm.weight") or name in ("norm_f.weight", "D"):
            return 1.0, 0.2
        if name == "conv1d.bias":
            return 0.0, 0.2
        gain = {
            "embeddings.weight": math.sqrt(shape[-1]),
            "lm_head.weight": 2.0,
            # Scores of size 2 or so: attention picks tokens instead of averaging all of them away.
            "q_proj.weight": 1.5,
            "k_proj.weight": 1.5,
            "v_proj.weight": 1.5,
            "o_proj.weight": 0.8,
            "conv1d.weight": 1.5,
            "out_proj.weight": 0.8,
            "down_proj.weight": 0.6,  # relu(u)² of a normal u has size √1.5
        }.get(name, 1.0)
        return 0.0, gain / math.sqrt(shape[-1])

    def _in_proj(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """Rows z | x | B | C | dt; dt follows the input, but stays near its bias."""
        weight: Doubles = normal(rng, shape) / math.sqrt(shape[-1])
        z_x_dt = shape[0] - 2 * self._arch.ssm_groups * self._arch.ssm_state
        heads = z_x_dt // (2 * self._arch.mamba_head_dim + 1)
        weight[-heads:] *= 0.7
        return weight.astype(np.float32)


def uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Doubles:
    """Uniform in (0, 1), 32 bits of the raw stream each: numpy promises that stream, not its distributions."""
    raw = np.asarray(rng.bit_generator.random_raw(math.prod(shape)), np.uint64)
    numbers: Doubles = ((raw >> np.uint64(32)).astype(np.float64).reshape(shape) + 0.5) / 2.0**32
    return numbers


def log_decay(chances: Doubles) -> Doubles:
    """A_log = ln A with A uniform in 1 … 16, by the chances [H] in (0, 1)."""
    return _exactly(lambda u: (1 + 15 * u).ln(), chances)


def inverse_softplus_of_step(chances: Doubles) -> Doubles:
    """dt_bias = ln(exp(dt) - 1) with ln dt uniform between those of 1e-3 and 1e-1, by the chances [H] in (0, 1)."""
    return _exactly(lambda u: (((u * Decimal(100).ln()).exp() / 1000).exp() - 1).ln(), chances)


def _exactly(formula: Callable[[Decimal], Decimal], chances: Doubles) -> Doubles:
    """A formula in decimal arithmetic, whose ln and exp are correctly rounded by its specification: those of the C
    library and of numpy differ in the last digit from machine to machine. 40 digits leave a float64 nothing to doubt.
    """
    with decimal.localcontext(prec=40):
        return np.array([float(formula(Decimal(chance))) for chance in chances.tolist()])


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Doubles:
    """Nearly normal, mean 0, deviation 1: the sum of four uniforms of 16 bits (Irwin–Hall), exact in float64."""
    raw = np.asarray(rng.bit_generator.random_raw(math.prod(shape)), np.uint64)
    total: Doubles = np.zeros(raw.shape)
    for shift in (0, 16, 32, 48):
        total += ((raw >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float64)
    return ((total - 2 * 65535) / math.sqrt((2.0**32 - 1) / 3)).reshape(shape)


def write_checkpoint(
    directory: Path,
    arch: Architecture,
    weights: Mapping[str, np.ndarray[Any, Any]],
    budgets: Iterable[Budget] | Mapping[str, Any] | None = None,
    dtype: str = "bf16",
    shards: int = 1,
    prefix: str = "backbone",
    fp32_vectors: bool = False,
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
    """
    by_suffix = {_without_prefix(name): array for name, array in weights.items()}
    plan = {name: (_file_dtype(name, dtype, fp32_vectors), shape) for name, shape in arch.tensor_shapes(prefix).items()}
    _write_documents(directory, arch, budgets, dtype)
    for file, names in _shard_plan(plan, shards).items():
        header, _ = encode_header({name: plan[name] for name in names}, {"format": "pt"})
        with (directory / file).open("wb") as out:
            out.write(header)
            for name in names:
                array = by_suffix[_without_prefix(name)].astype(DTYPES[plan[name][0]][1])
                out.write(array.tobytes())
    _write_index(directory, plan, shards)
    return directory


def write_sparse_checkpoint(
    directory: Path,
    arch: Architecture = NANO_12B,
    budgets: Iterable[Budget] | Mapping[str, Any] | None = None,
    shards: int = 5,
) -> Path:
    """A BF16 checkpoint whose headers are right and whose data are holes: any size, no disk, no time. All zeros."""
    plan = {name: ("bf16", shape) for name, shape in arch.tensor_shapes().items()}
    _write_documents(directory, arch, BUDGETS_12B if budgets is None else budgets, "bf16")
    for file, names in _shard_plan(plan, shards).items():
        header, entries = encode_header({name: plan[name] for name in names}, {"format": "pt"})
        with (directory / file).open("wb") as out:
            out.write(header)
            out.truncate(max(entry.offset + entry.nbytes for entry in entries.values()))
    _write_index(directory, plan, shards)
    return directory


_Plan = dict[str, tuple[str, tuple[int, ...]]]


def _shard_plan(plan: _Plan, shards: int) -> dict[str, list[str]]:
    """File → tensors, in order, of about equal bytes; every file gets one tensor at least."""
    if shards == 1:
        return {SINGLE: list(plan)}
    sizes = {name: math.prod(shape) * itemsize(dtype) for name, (dtype, shape) in plan.items()}
    files: dict[str, list[str]] = {f"model-{i + 1:05}-of-{shards:05}.safetensors": [] for i in range(shards)}
    names, total, done, at = list(files), sum(sizes.values()), 0, 0
    for position, (name, size) in enumerate(sizes.items()):
        left = len(sizes) - position
        full = files[names[at]] and (done >= total * (at + 1) / shards or left <= shards - 1 - at)
        at += 1 if full and at + 1 < shards else 0
        files[names[at]].append(name)
        done += size
    return files


def _write_documents(
    directory: Path, arch: Architecture, budgets: Iterable[Budget] | Mapping[str, Any] | None, dtype: str
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", config_document(arch) | {"torch_dtype": FULL_NAMES[dtype]})
    if budgets is not None:
        document = budgets if isinstance(budgets, Mapping) else budgets_document(arch, budgets)
        write_json(directory / FILE_NAME, document)


def _write_index(directory: Path, plan: _Plan, shards: int) -> None:
    if shards == 1:
        return
    weight_map = {name: file for file, names in _shard_plan(plan, shards).items() for name in names}
    total = sum(math.prod(shape) * itemsize(dtype) for dtype, shape in plan.values())
    write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _without_prefix(name: str) -> str:
    return name if name == "lm_head.weight" else name.split(".", 1)[1]


def _file_dtype(name: str, dtype: str, fp32_vectors: bool) -> str:
    return "fp32" if fp32_vectors and name.endswith((".A_log", ".D", ".dt_bias")) else dtype
