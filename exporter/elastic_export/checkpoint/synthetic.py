"""Checkpoints of our own: random weights, which every test of the compile is made of, and any weights in the published
layout, as the built-in demo was written.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from elastic_export.checkpoint.config import config_document
from elastic_export.checkpoint.json_files import write_json
from elastic_export.checkpoint.shards import INDEX, SINGLE
from elastic_export.dtypes import DTYPES as MODEL_DTYPES
from elastic_export.layers.architecture import Architecture
from elastic_runtime.format.safetensors import dtype_name, encode_header

Array = np.ndarray[Any, Any]
Weights = dict[str, Array]
Doubles = np.ndarray[Any, np.dtype[np.float64]]


def random_weights(arch: Architecture, rng: np.random.Generator) -> Weights:
    """Float32 weights under which every layer matters: deleting one moves the logits by 5 % or more.

    Each mixer's output has about the size of half an embedding, whatever the widths; dt lies in 1e-3 … 1e-1 and
    A in 1 … 16, as Mamba-2 initialises them, so states neither vanish nor stand still; norm weights, D and biases
    differ from their neutral values, so that forgetting one shows. Numbers come from the bit stream of `rng` by
    operations that IEEE 754 or the decimal specification round correctly: equal seeds give equal weights with any
    numpy on any machine.
    """
    return {name: random_tensor(arch, name, shape, rng) for name, shape in arch.tensor_shapes().items()}


def random_tensor(arch: Architecture, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """One tensor of `random_weights`, float32. A matrix may have fewer rows than the model's, but for in_proj."""
    return _Fans(arch).tensor(name.rsplit("mixer.", 1)[-1].removeprefix("backbone."), shape, rng)


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


def write_checkpoint(directory: Path, arch: Architecture, tensors: Mapping[str, Array], shards: int) -> None:
    """Write weights, config and index as a Hugging Face checkpoint folder.

    Args:
        directory: made if need be.
        arch: what the tensors are of.
        tensors: by their names in the file, in its order, in the dtype that the file keeps; the config names that of
            the matrices.
        shards: 1 gives `model.safetensors`, more an index.
    """
    dtypes = {name: dtype_name(array.dtype) for name, array in tensors.items()}
    sizes = {name: array.nbytes for name, array in tensors.items()}
    plan = shard_plan(sizes, shards)
    directory.mkdir(parents=True, exist_ok=True)
    dtype = MODEL_DTYPES[dtypes["lm_head.weight"]].full
    write_json(directory / "config.json", config_document(arch) | {"torch_dtype": dtype})
    for file, names in plan.items():
        header, _ = encode_header({name: (dtypes[name], tensors[name].shape) for name in names}, {"format": "pt"})
        with (directory / file).open("wb") as out:
            out.write(header)
            for name in names:
                out.write(tensors[name].tobytes())
    write_index(directory, plan, sum(sizes.values()))


def shard_plan(sizes: Mapping[str, int], shards: int) -> dict[str, list[str]]:
    """File → tensors, in order, of about equal bytes (`sizes`); every file gets one tensor at least."""
    if shards == 1:
        return {SINGLE: list(sizes)}
    files: dict[str, list[str]] = {f"model-{i + 1:05}-of-{shards:05}.safetensors": [] for i in range(shards)}
    names, total, done, at = list(files), sum(sizes.values()), 0, 0
    for position, (name, size) in enumerate(sizes.items()):
        left = len(sizes) - position
        full = files[names[at]] and (done >= total * (at + 1) / shards or left <= shards - 1 - at)
        at += 1 if full and at + 1 < shards else 0
        files[names[at]].append(name)
        done += size
    return files


def write_index(directory: Path, plan: Mapping[str, list[str]], total: int) -> None:
    """Write which file of a plan holds each tensor, and the tensors' bytes; a single file needs none."""
    if len(plan) > 1:
        weight_map = {name: file for file, names in plan.items() for name in names}
        write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
