"""Synthetic quantised checkpoints in the layouts that NVIDIA publishes, and what their matrices are in float32.

Nothing here is shared with the reader: codes come from PyTorch's float8 and from a table of E2M1, files from the
safetensors library, names and lists from the published descriptions, and what a matrix is worth is reckoned in float64.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from elastic_export.checkpoint.budgets import FILE_NAME, budgets_document
from elastic_export.checkpoint.config import config_document
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget

#: Codes 0 to 7, then the same with the sign bit.
E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]
#: (code, largest magnitude that rounds to it, whether that one does itself): ties go to the even code.
_STEPS = [(0, 0.25, True), (1, 0.75, False), (2, 1.25, True), (3, 1.75, False), (4, 2.5, True), (5, 3.5, False),
          (6, 5.0, True), (7, float("inf"), True)]  # fmt: skip

#: Of a module: `FP8`, `NVFP4`, or nothing where it stays as it was.
Kind = Callable[[str], str | None]


def fp8(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Float32 [N, K] -> the module's tensors, and what they are worth."""
    scale = (weight.abs().amax() / 448).float()
    codes = (weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    worth = (codes.double() * scale.double()).float()
    return {"weight": codes, "weight_scale": scale, "input_scale": torch.tensor(0.0123)}, worth


def e2m1_codes(values: Tensor) -> Tensor:
    """Float32 -> uint8 codes."""
    magnitude, codes = values.abs(), torch.zeros_like(values, dtype=torch.uint8)
    below = torch.zeros_like(values, dtype=torch.bool)
    for code, most, itself in _STEPS:
        here = (magnitude <= most if itself else magnitude < most) & ~below
        codes[here] = code
        below |= here
    return codes + 8 * (values < 0).to(torch.uint8)


def nvfp4(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Float32 [N, K] -> the module's tensors, and what they are worth. Zero blocks get the scale 1, as ModelOpt's."""
    rows, columns = weight.shape
    scale_2 = (weight.abs().amax() / (6 * 448)).float()
    blocks = weight.reshape(rows, columns // 16, 16)
    wanted = blocks.abs().amax(-1) / (6 * scale_2)
    wanted[wanted == 0] = 1.0
    scales = wanted.clamp(2**-9, 448).to(torch.float8_e4m3fn)
    codes = e2m1_codes(blocks / (scales.float() * scale_2)[..., None])
    worth = torch.tensor(E2M1, dtype=torch.float64)[codes.long()] * scales.double()[..., None] * scale_2.double()
    flat = codes.reshape(rows, columns)
    packed = flat[:, 0::2] | (flat[:, 1::2] << 4)  # the even column in the low nibble
    tensors = {"weight": packed, "weight_scale": scales, "weight_scale_2": scale_2, "input_scale": torch.tensor(0.02)}
    return tensors, worth.reshape(rows, columns).float()


QUANTISE = {"FP8": fp8, "NVFP4": nvfp4}


@dataclass(frozen=True)
class Written:
    """A checkpoint on disk; `worth` is every tensor in float32, by its name in an unquantised one."""

    folder: Path
    worth: Mapping[str, np.ndarray[Any, Any]]
    kinds: Mapping[str, str]


def write_quantised(
    folder: Path,
    arch: Architecture,
    weights: Mapping[str, np.ndarray[Any, Any]],
    kind: Kind,
    budgets: list[Budget] | None = None,
    *,
    prefix: str = "backbone",
    described: tuple[str, ...] = ("file", "config"),
    cache_scales: bool = False,
    weight_only: Kind = lambda module: None,
    shards: int = 2,
) -> Written:
    """Write config, weights, budgets and ModelOpt's descriptions.

    Args:
        folder: made.
        arch: what the weights are of.
        weights: float32, named with the prefix `backbone`.
        kind: how each module is stored, asked for matrices by the name that it has in the checkpoint.
        budgets: none: no budget file.
        prefix: first word of the tensors' names in the file.
        described: `file`: hf_quant_config.json, `config`: quantization_config in config.json.
        cache_scales: write k_scale and v_scale; the description announces them in any case.
        weight_only: modules (any true value) without an input_scale.
        shards: files.
    """
    tensors, worth, kinds = dict[str, Tensor](), dict[str, np.ndarray[Any, Any]](), dict[str, str]()
    matrices = []
    for name in arch.tensor_shapes(prefix):
        weight = torch.from_numpy(np.asarray(weights[name.replace(f"{prefix}.", "backbone.", 1)], np.float32))
        module = name.removesuffix(".weight")
        chosen = kind(module) if weight.ndim == 2 else None
        if weight.ndim == 2:
            matrices.append(module)
        if chosen is None:
            tensors[name] = weight.bfloat16()
            worth[name] = tensors[name].float().numpy()
            continue
        pieces, value = QUANTISE[chosen](weight)
        if weight_only(module):
            del pieces["input_scale"]
        tensors |= {f"{module}.{piece}": tensor for piece, tensor in pieces.items()}
        worth[name], kinds[module] = value.numpy(), chosen
    if cache_scales:
        for module in (module for module in matrices if module.endswith((".k_proj", ".v_proj"))):
            tensors[f"{module}.{module[-6]}_scale"] = torch.tensor(0.5)
    folder.mkdir(parents=True)
    _save(folder, tensors, shards)
    describe_quantised(folder, arch, kinds, [module for module in matrices if module not in kinds], described)
    if budgets is not None:
        (folder / FILE_NAME).write_text(json.dumps(budgets_document(arch, budgets)))
    return Written(folder, worth, kinds)


def _save(folder: Path, tensors: Mapping[str, Tensor], shards: int) -> None:
    names = list(tensors)
    files = {f"model-{i + 1:05}-of-{shards:05}.safetensors": names[i::shards] for i in range(shards)}
    for file, some in files.items():
        save_file({name: tensors[name].contiguous() for name in some}, folder / file, {"format": "pt"})
    weight_map = {name: file for file, some in files.items() for name in some}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def describe_quantised(
    folder: Path, arch: Architecture, kinds: Mapping[str, str], plain: list[str], described: tuple[str, ...]
) -> None:
    """Write config.json, and what `described` asks for, of modules that are quantised and others that are not."""
    config = config_document(arch) | {"torch_dtype": "bfloat16"}
    different = set(kinds.values())
    algorithm = "MIXED_PRECISION" if len(different) > 1 else next(iter(different), None)
    producer = {"name": "modelopt", "version": "0.41.0"}
    said: dict[str, Any] = {"quant_algo": algorithm, "kv_cache_quant_algo": "FP8", "group_size": 16}
    layers = {module: {"quant_algo": kind, "group_size": 16} for module, kind in kinds.items()}
    said |= {"quantized_layers": layers} if len(different) > 1 else {"exclude_modules": plain}
    if "file" in described:
        (folder / "hf_quant_config.json").write_text(json.dumps({"producer": producer, "quantization": said}))
    if "config" in described:
        own: dict[str, Any] = {"quant_method": "modelopt", "quant_algo": algorithm, "producer": producer}
        own |= {"kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"}, "ignore": plain}
        own |= {"quantized_layers": layers} if len(different) > 1 else {}
        config["quantization_config"] = own
    (folder / "config.json").write_text(json.dumps(config))


# ------------------------------------------------------------------------------------------- the published layouts

#: The 4B's layers: attention at 12, 17, 24, 32; the MLPs that the recipe names; Mamba-2 elsewhere.
_MLPS_4B = {1, 3, 5, 8, 10, 13, 15, 18, 20, 22, 25, 27, 29, 33, 37, 39, 41}
PATTERN_4B = "".join("*" if i in (12, 17, 24, 32) else "-" if i in _MLPS_4B else "M" for i in range(42))
PATTERN_9B = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"


def _place(module: str) -> tuple[int, str]:
    """(layer, name in its mixer); -1 for what belongs to no layer."""
    parts = module.split(".")
    return (int(parts[2]), parts[-1]) if "layers" in parts else (-1, parts[-1])


def nano_9b_v2_nvfp4(module: str) -> str | None:
    """NVIDIA-Nemotron-Nano-9B-v2-NVFP4: head, attention and the first and last two layers are excluded."""
    layer, name = _place(module)
    return None if layer in (-1, 0, 1, 54, 55) or name in ("q_proj", "k_proj", "v_proj", "o_proj") else "NVFP4"


def nano_4b_fp8(module: str) -> str | None:
    """NVIDIA-Nemotron-3-Nano-4B-FP8: Mamba and MLP, without the Mamba layers before attention."""
    layer, name = _place(module)
    if name in ("in_proj", "out_proj"):
        return None if layer in (11, 16, 23, 31) else "FP8"
    return "FP8" if name in ("up_proj", "down_proj") else None


def nano_4b_nvfp4(module: str) -> str | None:
    """A 4B by the rule of the 9B's published list: head, attention and the first and last two layers are excluded."""
    layer, name = _place(module)
    return None if layer in (-1, 0, 1, 40, 41) or name in ("q_proj", "k_proj", "v_proj", "o_proj") else "NVFP4"


def nano_4b_mixed(module: str) -> str | None:
    """The 4B's W4A16 recipe: everything NVFP4 but some down_proj and the head, which are FP8."""
    layer, name = _place(module)
    fp8_down = {1, 3, 5, 8, 10, 18, 25, 33, 41}
    return "FP8" if name == "lm_head" or (name == "down_proj" and layer in fp8_down) else "NVFP4"


def weight_only_4b(module: str) -> str | None:
    """Of that recipe: embeddings and head have no input_scale."""
    return "yes" if _place(module)[0] == -1 else None
