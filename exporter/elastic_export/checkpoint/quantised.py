"""The signs of quantised weights that are not read, whoever made them: who has some should hear that, and of whom.

A checkpoint says it in one place or several: the dtype of its matrices, names of scales and packed weights, a key of
config.json, a file of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from elastic_runtime.errors import InputError
from elastic_runtime.format.jsonfile import read_json

#: Files beside the weights: ModelOpt's, GPTQ's, AWQ's, llm-compressor's.
FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json", "recipe.yaml")
#: Ends of names: scales of any of them, GPTQ's and AWQ's packed integers, compressed-tensors', bitsandbytes', MLX's.
NAMES = re.compile(
    r"(_scale(_inv|_2)?|\.(qweight|qzeros|scales|biases|g_idx|perm|SCB|weight_format|absmax|quant_map|nested_absmax"
    r"|nested_quant_map|weight_packed|weight_shape|weight_zero_point|weight_g_idx)|\.quant_state\..+)$"
)
FULL_ONES = "export the checkpoint that it was quantised from, in bf16, fp16 or fp32"
_ALGORITHM = ("quant_algo", "quant_method", "bits")


def quantisation_file(directory: Path) -> str:
    """What a file of its own says of the weights: `hf_quant_config.json says FP8`; empty where there is none."""
    for name in FILES:
        if (directory / name).is_file():
            algorithm = _algorithm(directory / name) if name.endswith(".json") else ""
            return f"{name} says {algorithm}" if algorithm else f"there is {name}"
    return ""


def describe(config: object) -> str:
    """What a quantisation's description calls it; empty where it gives it no name."""
    if not isinstance(config, dict):
        return ""
    inner = config.get("quantization")
    found = {**config, **(inner if isinstance(inner, dict) else {})}
    name = next((f"{found[key]}" for key in _ALGORITHM if isinstance(found.get(key), str | int) and found[key]), "")
    kind = found.get("format")  # compressed-tensors' own
    return (f"{name}, {kind}" if name and isinstance(kind, str) else name)[:60]


def quantised(subject: str, sign: str, described: str) -> InputError:
    """The refusal: `sign` is what shows it, `described` what a file says of it."""
    found = f"quantised ones: {sign}" + (f", and {described}" if described else "")
    expected = "weights in bf16, fp16 or fp32, or as ModelOpt stores FP8 (per tensor) and NVFP4"
    return InputError(subject, expected=expected, found=found, todo=FULL_ONES)


def named_so(names: Iterable[str]) -> str:
    """The first name that only tensors beside quantised weights have; empty where none does."""
    return next((name for name in names if NAMES.search(name)), "")


def _algorithm(path: Path) -> str:
    try:
        document: dict[str, Any] = read_json(path, any_number=True)
    except InputError:  # a sign all the same, and nothing is read of it but its name
        return ""
    return describe(document)
