"""A checkpoint's tensors against its architecture: every tensor used once, every parameter filled once."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Protocol

from elastic_export.checkpoint.shards import shorten
from elastic_export.layers.all_kinds import AXES, KIND_OF_AXIS, KINDS
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.axis import extent
from elastic_runtime.errors import InputError
from elastic_runtime.format.interface import PRECISIONS

PREFIXES = ("backbone", "model")
#: Kind of layer, in words, by the names of its larger tensors. Vectors say too little: many layers have a norm.
_KINDS = {tensor.name: kind.noun for kind in KINDS for tensor in kind.tensors if len(tensor.axes) > 1}
_MIXER = re.compile(r"(?:backbone|model)\.layers\.(\d+)\.mixer\.(.+)")


class Described(Protocol):
    """What is known of a tensor from its header."""

    @property
    def dtype(self) -> str:
        """Our name of the dtype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""


@dataclass(frozen=True)
class Inventory:
    """The tensors of the architecture, in the order of the data's way, and the dtype of its matrices."""

    names: tuple[str, ...]
    dtype: str
    warnings: tuple[str, ...]


def find_prefix(names: Collection[str]) -> str:
    """`model` where the tensors are named as newer saves do, else `backbone`."""
    counts = Counter(name.split(".", 1)[0] for name in names)
    return max(PREFIXES, key=lambda prefix: counts[prefix])


def observed_widths(architecture: Architecture, prefix: str, found: Mapping[str, Described]) -> Architecture:
    """The architecture with the widths that vary by layer read off tensors, where these are there.

    Of each such axis the first tensor whose rows are that axis and nothing else says it: `up_proj` the FFN, `A_log` the
    Mamba heads.
    """
    for axis in (axis for axis in AXES if axis.per_layer):
        kind, widths = KIND_OF_AXIS[axis], list(getattr(architecture, axis.field))
        tensor = next(tensor for tensor in kind.tensors if tensor.axes[0] == extent(axis))
        for layer in (layer for layer in architecture.layers() if layer.kind is kind):
            described = found.get(f"{prefix}.layers.{layer.index}.mixer.{tensor.name}")
            if described is not None and described.shape:
                widths[layer.ordinal] = described.shape[0]
        observed: dict[str, Any] = {axis.field: tuple(widths)}
        architecture = replace(architecture, **observed)
    return architecture


def check_inventory(
    subject: str,
    architecture: Architecture,
    prefix: str,
    found: Mapping[str, Described],
    ignore: Sequence[str] = (),
) -> Inventory:
    """Check names, shapes and dtypes; equal shapes are an equal parameter count.

    Args:
        subject: the checkpoint, named in errors.
        ignore: globs of tensors that are no part of the architecture and may be left out.

    Raises:
        InputError: missing and unknown tensors (listed), a wrong shape or dtype, matrices of several dtypes.
    """
    shapes = architecture.tensor_shapes(prefix)
    unknown = [name for name in found if name not in shapes]
    _check_names(subject, [name for name in shapes if name not in found], _without(unknown, ignore))
    _check_shapes(subject, shapes, found)
    dtype = _check_dtypes(subject, shapes, found)
    idle = [glob for glob in ignore if not any(fnmatchcase(name, glob) for name in unknown)]
    warnings = tuple(f"--ignore-tensors {glob}: matches no tensor that is not part of the model" for glob in idle)
    return Inventory(tuple(shapes), dtype, warnings)


def _is_matrix(shape: Sequence[int]) -> bool:
    """Whether it is multiplied as a matrix, so that its dtype is the model's: no vector, nor a convolution's taps."""
    return len(shape) == 2


def _without(names: list[str], globs: Sequence[str]) -> list[str]:
    return [name for name in names if not any(fnmatchcase(name, glob) for glob in globs)]


def _check_names(subject: str, missing: list[str], unknown: list[str]) -> None:
    if not missing and not unknown:
        return
    parts, other_kind = [], [name for name in unknown if _KINDS.get(_place(name)[1])]
    renamed = _renamed(missing, [name for name in unknown if name not in other_kind])
    if missing:
        parts.append(f"missing {shorten(missing)}" + (f" ({missing[0]} renamed to {renamed}?)" if renamed else ""))
    if unknown:
        parts.append(f"unknown {shorten(unknown)}")
    expected = "exactly the tensors that config.json asks for"
    todo = _what_to_do(bool(missing), renamed, other_kind)
    raise InputError(f"{subject}, tensors", expected=expected, found="; ".join(parts), todo=todo)


def _what_to_do(missing: bool, renamed: str, other_kind: list[str]) -> str:
    if other_kind:
        layer, tensor = _place(other_kind[0])
        return f"correct the layer pattern in config.json: layer {layer} has the tensors of {_KINDS[tensor]}"
    if not missing:
        return "if the unknown ones may be left out, name them with --ignore-tensors GLOB"
    return "rename it back" if renamed else "download the checkpoint again, or correct the layer pattern in config.json"


def _renamed(missing: list[str], unknown: list[str]) -> str:
    """What the first missing tensor may be called now; of a layer's tensors, only one of the same layer."""
    if not missing:
        return ""
    layer = _layer(missing[0])
    candidates = [name for name in unknown if _layer(name) == layer]
    return next(iter(difflib.get_close_matches(missing[0], candidates, n=1, cutoff=0.8)), "")


def _layer(name: str) -> str:
    """The number of the layer that a tensor is of; empty for those of no layer."""
    found = re.search(r"\.layers\.(\d+)\.", name)
    return found[1] if found else ""


def _place(name: str) -> tuple[str, str]:
    """(layer, name inside its mixer) of a mixer's tensor; empty for all others, other networks' layers among them."""
    found = _MIXER.match(name)
    return (found[1], found[2]) if found else ("", "")


def _check_shapes(subject: str, shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, Described]) -> None:
    wrong = [name for name, shape in shapes.items() if found[name].shape != shape]
    if wrong:
        first = wrong[0]
        more = f" (and {len(wrong) - 1} more tensors of another shape than the config's)" if len(wrong) > 1 else ""
        expected = f"shape {list(shapes[first])} by config.json"
        found_shape = list(found[first].shape)
        transposed = found_shape == list(shapes[first])[::-1]
        todo = "save it untransposed, [out, in]" if transposed else "correct the width in config.json, or the tensor"
        raise InputError(f"{subject}, tensor {first!r}", expected=expected, found=f"{found_shape}{more}", todo=todo)


def _check_dtypes(subject: str, shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, Described]) -> str:
    matrices = Counter(found[name].dtype for name, shape in shapes.items() if _is_matrix(shape))
    model = matrices.most_common(1)[0][0]
    for name, shape in shapes.items():
        allowed = (model,) if _is_matrix(shape) else (model, "fp32")
        if model not in PRECISIONS or found[name].dtype not in allowed:
            expected = " or ".join(PRECISIONS if model not in PRECISIONS else dict.fromkeys(allowed))
            reason = "" if model not in PRECISIONS or len(matrices) == 1 else ", as most matrices are"
            raise InputError(
                f"{subject}, tensor {name!r}",
                expected=f"dtype {expected}{reason}",
                found=found[name].dtype,
                todo=f"save it as {model if model in PRECISIONS else PRECISIONS[0]}; quantised weights are not read",
            )
    return model
