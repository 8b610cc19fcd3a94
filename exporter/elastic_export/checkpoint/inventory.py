"""A checkpoint's tensors against its architecture: every tensor used once, every parameter filled once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from elastic_export.checkpoint.experts import mixture, of_experts
from elastic_export.checkpoint.foreign import Described, foreign_format
from elastic_export.checkpoint.quantised import named_so, quantised
from elastic_export.checkpoint.renamed import in_words, near_names, same_tails
from elastic_export.checkpoint.shards import ignored, shorten
from elastic_export.dtypes import DTYPES
from elastic_export.layers.all_kinds import AXES, KIND_OF_AXIS, KINDS
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.axis import extent
from elastic_runtime.errors import InputError
from elastic_runtime.format.interface import PRECISIONS

PREFIXES = ("backbone", "model")
#: Dtypes that no matrix has but a quantised one.
QUANTISED = frozenset({"fp8_e4m3", "fp8_e5m2", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "bool"})
#: Kind of layer, in words, by the names of its larger tensors. Vectors say too little: many layers have a norm.
_KINDS = {tensor.name: kind.noun for kind in KINDS for tensor in kind.tensors if len(tensor.axes) > 1}
_MIXER = re.compile(r"(?:backbone|model)\.layers\.(\d+)\.mixer\.(.+)")


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
    described: str = "",
) -> Inventory:
    """Check names, shapes and dtypes; equal shapes are an equal parameter count.

    Args:
        subject: the checkpoint, named in errors.
        ignore: globs of tensors that are no part of the architecture and may be left out.
        described: what a file beside the weights says of their quantisation.

    Raises:
        InputError: quantised weights, a mixture of experts, an adapter, missing and unknown tensors (listed), a wrong
            shape or dtype, matrices of several dtypes.
    """
    shapes = architecture.tensor_shapes(prefix)
    unknown, missing = [name for name in found if name not in shapes], [name for name in shapes if name not in found]
    _check_plain(subject, shapes, found, bool(missing), described)
    _check_names(subject, missing, [name for name in unknown if not ignored(name, ignore)])
    _check_shapes(subject, shapes, found)
    dtype = _check_dtypes(subject, shapes, found)
    idle = [glob for glob in ignore if not any(fnmatchcase(name, glob) for name in unknown)]
    warnings = tuple(f"--ignore-tensors {glob}: matches no tensor that is not part of the model" for glob in idle)
    return Inventory(tuple(shapes), dtype, warnings)


def _is_matrix(shape: Sequence[int]) -> bool:
    """Whether it is multiplied as a matrix, so that its dtype is the model's: no vector, nor a convolution's taps."""
    return len(shape) == 2


def _check_plain(
    subject: str,
    shapes: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Described],
    missing: bool,
    described: str,
) -> None:
    """Refuse weights of a kind that is recognised and not read, before anything about them is called wrong."""
    stored = {name: found[name].dtype for name, shape in shapes.items() if name in found and _is_matrix(shape)}
    odd = next((name for name, dtype in stored.items() if dtype in QUANTISED), "")
    if odd:
        called = _format_of(odd, shapes, found)
        raise quantised(f"{subject}, tensor {odd!r}", f"it is in {called or stored[odd]}", described)
    if missing and (sign := named_so(found)):
        called = next((name for matrix in shapes if (name := _format_of(matrix, shapes, found))), "")
        raise quantised(f"{subject}, tensor {sign!r}", called or "a full one has none of that name", described)
    if missing and (sign := of_experts(found)):
        raise mixture(f"{subject}, tensor {sign!r}", "the layers that config.json gives")
    adapter = next((name for name in found if ".lora_" in name), "")
    if missing and adapter:
        todo = "merge it into the model that it was trained on, and export what comes out"
        raise InputError(f"{subject}, tensor {adapter!r}", expected="a whole model", found="a LoRA adapter", todo=todo)


def _format_of(matrix: str, shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, Described]) -> str:
    """What the format of a quantised matrix is called, if what lies beside it tells."""
    if not _is_matrix(shapes[matrix]):
        return ""
    lead = matrix.removesuffix("weight")
    beside = {name.removeprefix(lead): tensor for name, tensor in found.items() if name.startswith(lead)}
    return foreign_format(shapes[matrix], beside)


def _check_names(subject: str, missing: list[str], unknown: list[str]) -> None:
    if not missing and not unknown:
        return
    renamed = same_tails(missing, unknown)
    left = [name for name in unknown if name not in renamed.values()]
    other_kind = [name for name in left if _KINDS.get(_place(name)[1])]
    near = near_names([n for n in missing if n not in renamed], [n for n in left if n not in other_kind])
    renamed |= near
    parts = []
    if missing:
        parts.append(f"missing {shorten(missing)}" + (f" ({in_words(renamed)})" if renamed else ""))
    if unknown:
        parts.append(f"unknown {shorten(unknown)}")
    expected = "exactly the tensors that config.json asks for"
    raise InputError(
        f"{subject}, tensors",
        expected=expected,
        found="; ".join(parts),
        todo=_what_to_do(missing, renamed, other_kind),
    )


def _what_to_do(missing: list[str], renamed: Mapping[str, str], other_kind: list[str]) -> str:
    if other_kind:
        layer, tensor = _place(other_kind[0])
        return f"correct the layer pattern in config.json: layer {layer} has the tensors of {_KINDS[tensor]}"
    if not missing:
        return "if the unknown ones may be left out, name them with --ignore-tensors GLOB"
    if renamed:
        return "rename it back" if len(renamed) == 1 else "rename them back"
    if missing == ["lm_head.weight"]:
        return "save the checkpoint with its head: of tied embeddings, a copy of them"
    return "download the checkpoint again, or correct the layer pattern in config.json"


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
    matrices = _dtypes_of_matrices(shapes, found)
    model = _most(matrices)
    for name, shape in shapes.items():
        allowed = (model,) if _is_matrix(shape) else tuple(dict.fromkeys((model, "fp32")))
        if found[name].dtype not in allowed:
            raise InputError(
                f"{subject}, tensor {name!r}",
                expected="dtype " + " or ".join(allowed) + (", as most matrices are" if len(matrices) > 1 else ""),
                found=found[name].dtype,
                todo=f"save it as {model}",
            )
    return model


def model_dtype(
    shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, Described], config: Mapping[str, Any]
) -> str:
    """The dtype of a model whose matrices are not all quantised: that of most others; else what the config says."""
    matrices = _dtypes_of_matrices(shapes, found)
    if any(matrices[precision] for precision in PRECISIONS):
        return _most(matrices)
    said = [config.get(key) for key in ("torch_dtype", "dtype")]
    return next((dtype.short for dtype in DTYPES.values() if dtype.full in said), "bf16")


def _dtypes_of_matrices(shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, Described]) -> Counter[str]:
    return Counter(found[name].dtype for name, shape in shapes.items() if _is_matrix(shape) and name in found)


def _most(matrices: Counter[str]) -> str:
    return max(PRECISIONS, key=lambda precision: matrices[precision])
