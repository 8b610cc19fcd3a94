"""What ModelOpt says of a checkpoint's quantisation, in either of two places.

    hf_quant_config.json                {"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head", …], …}}
    quantization_config of config.json  {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head", …], …}

Mixed checkpoints name each module under `quantized_layers`. Older releases have the first alone, and lists that do not
agree with the weights are in the wild: which matrix is stored how say its tensors (`find_quantised`). What is written
here is held against them, and names formats that are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, TypeGuard

from elastic_export.checkpoint.companions import check_file
from elastic_export.checkpoint.formats.nvfp4 import BLOCK
from elastic_export.checkpoint.inventory import PREFIXES
from elastic_export.checkpoint.quantised import FULL_ONES
from elastic_export.checkpoint.shards import shorten
from elastic_runtime.errors import InputError, advised
from elastic_runtime.format.jsonfile import json_type, read_json

FILE: Final = "hf_quant_config.json"
KEY: Final = "quantization_config"
#: Those whose tensors may be ones that are read. W8A16 is said of FP8 weights alone, and of int8.
ALGORITHMS: Final = ("FP8", "NVFP4", "W4A16_NVFP4", "W8A16", "MIXED_PRECISION")
_AGAIN = "download the checkpoint's description again"


@dataclass(frozen=True)
class Announced:
    """What one place says.

    Attributes:
        subject: the file, and the key in it.
        algorithm: for the whole checkpoint; empty where it is null: of caches alone, or of nothing.
        excluded: modules that are not quantised, by name or glob.
        layers: by module, what each is quantised as; empty unless they differ.

    Names begin as the model's did when it was quantised, with `backbone` or `model`, whatever the tensors' do.
    """

    subject: str
    algorithm: str
    excluded: tuple[str, ...]
    layers: Mapping[str, str]

    def says(self, module: str, *, linear: bool) -> bool | None:
        """Whether it has a module quantised; None where it does not say."""
        if self.layers:
            return _tail(module) in map(_tail, self.layers)
        if any(fnmatchcase(_tail(module), _tail(glob)) for glob in self.excluded):
            return False
        return True if self.algorithm and linear else None


def _tail(name: str) -> str:
    first, dot, rest = name.partition(".")
    return rest if dot and first in PREFIXES else name


def read_announced(directory: Path, config: Mapping[str, Any]) -> tuple[Announced, ...]:
    """What the places say that are there.

    Raises:
        InputError: a file that is no JSON, a key of another type, a format that is not read.
    """
    found, file = [], directory / FILE
    check_file(file)
    if file.is_file():
        with advised(_AGAIN):
            found.append(_parse(read_json(file, any_number=True), str(file)))
    if is_modelopt(own := config.get(KEY)):
        found.append(_parse(own, f"{directory / 'config.json'}, {KEY}"))
    return tuple(found)


def is_modelopt(described: object) -> TypeGuard[dict[str, Any]]:
    """Whether `quantization_config` is ModelOpt's; other methods are refused with the config's other keys."""
    if not isinstance(described, dict):
        return False
    return str(described.get("quant_method", "modelopt")).startswith("modelopt") and bool(
        described.keys() & {"quant_algo", "quantization", "quantized_layers", "config_groups"}
    )


def contradictions(places: Iterable[Announced], quantised: Mapping[str, bool]) -> list[str]:
    """Warnings about modules that are stored otherwise than announced.

    Args:
        places: what is announced.
        quantised: of every matrix of the model, by its module: whether it is.
    """
    warnings = []
    for place in places:
        said = {module: place.says(module, linear="embeddings" not in module) for module in quantised}
        wrongly = [module for module, stored in quantised.items() if stored and said[module] is False]
        plain = [module for module, stored in quantised.items() if not stored and said[module] is True]
        if wrongly:
            warnings.append(f"{place.subject} does not count {shorten(wrongly)} as quantised: read as they are stored")
        if plain:
            warnings.append(f"{place.subject} counts {shorten(plain)} as quantised: read as they are stored, whole")
    return warnings


def _parse(document: Mapping[str, Any], subject: str) -> Announced:
    inner = document.get("quantization", document)
    if not isinstance(inner, dict):
        raise InputError(f"{subject}, quantization", expected="an object", found=json_type(inner), todo=_AGAIN)
    layers = inner.get("quantized_layers") or {}
    if not isinstance(layers, dict) or not all(isinstance(layer, dict) for layer in layers.values()):
        expected = "an object of module to object"
        raise InputError(f"{subject}, quantized_layers", expected=expected, found=json_type(layers), todo=_AGAIN)
    _check_group(subject, inner)
    for name, layer in layers.items():
        _check_group(f"{subject}, quantized_layers, {name}", layer)
    algorithms = {name: _algorithm(f"{subject}, quantized_layers, {name}", layer) for name, layer in layers.items()}
    return Announced(subject, _algorithm(subject, inner), _excluded(subject, inner), algorithms)


def _algorithm(subject: str, described: Mapping[str, Any]) -> str:
    found = described.get("quant_algo")
    if found is None:
        return ""
    if found not in ALGORITHMS:
        expected = f"one of {', '.join(ALGORITHMS)} (others are not read)"
        raise InputError(f"{subject}, quant_algo", expected=expected, found=repr(found)[:60], todo=FULL_ONES)
    return str(found)


def _check_group(subject: str, described: Mapping[str, Any]) -> None:
    """FP8 has no groups, and says so by the key's absence, null or 0."""
    if (found := described.get("group_size")) not in (None, 0, BLOCK):
        expected = f"{BLOCK}, the block of NVFP4 (others are not read)"
        raise InputError(f"{subject}, group_size", expected=expected, found=json_type(found), todo=FULL_ONES)


def _excluded(subject: str, described: Mapping[str, Any]) -> tuple[str, ...]:
    key = "exclude_modules" if "exclude_modules" in described else "ignore"
    found = described.get(key) or []
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise InputError(f"{subject}, {key}", expected="a list of names", found=json_type(found), todo=_AGAIN)
    return tuple(found)
