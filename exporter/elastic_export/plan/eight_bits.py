"""Weights in eight bits, as far as a plan must know them: what can be asked for, and what it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, Literal

from elastic_export.checkpoint.conversion import stored_dtype
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits
from elastic_export.layers.kept import tensor_runs
from elastic_export.runs import runs_shape
from elastic_runtime.errors import InputError
from elastic_runtime.fit.targets import Target
from elastic_runtime.format.forms import entry_name
from elastic_runtime.format.interface import Precision
from elastic_runtime.format.safetensors import itemsize

Quantise = Literal["none", "int8"]
#: TensorRT-RTX's support matrix says no to INT8 weight-only products there, although its builder takes them.
_NO_INT8: Final = frozenset({"7.5"})
_WHY: Final = {
    "fp16": "fp16, in which a product before its row's scale can pass 65504",
    "fp32": "fp32, with which TensorRT-RTX joins no int8 weight in one kernel",
}
_SHOWN = 4


def as_forms(budgets: Iterable[Budget], checkpoint: Checkpoint, quantise: Quantise) -> list[Budget]:
    """The budgets under the names that a bundle has for this form of them, in which it may have them in both.

    Raises:
        InputError: another budget has such a name.
    """
    if quantise == "none":
        return list(budgets)
    forms = [replace(budget, name=entry_name(budget.name, quantise)) for budget in budgets]
    others = {name.lower() for name in checkpoint.budgets}
    for form in forms:
        if form.name.lower() in others:
            todo = "rename that budget in the budget file, or leave out --quantize"
            expected = f"no budget called {form.name!r}, as a bundle calls this one in int8"
            raise InputError("--quantize int8", expected=expected, found="one", todo=todo)
    return forms


def eight_bits_of(checkpoint: Checkpoint) -> EightBits:
    """The matrices that the file of this parent in eight bits holds, whichever budgets are exported."""
    return EightBits.of(checkpoint.architecture, checkpoint.budgets.values(), checkpoint.prefix)


def plan_eight_bits(
    checkpoint: Checkpoint, precision: Precision, weights: str, *, external: bool, targets: Iterable[Target]
) -> EightBits:
    """The matrices that are kept in eight bits.

    Args:
        checkpoint: the parent.
        precision: of activations.
        weights: the mode, `shared` and so on.
        external: whether the parent's shards are to stay outside the bundle.
        targets: of the engines.

    Raises:
        InputError: the request asks for what int8 weights do not go with, or no matrix can be kept so.
    """
    subject, found = "--quantize int8", ""
    if lacking := [target.name for target in targets if _NO_INT8.issuperset(target.compute_capabilities)]:
        expected, todo = "targets of compute capability 8.0 or newer", "leave that target out, or --quantize"
        found = f"{', '.join(lacking)} with 7.5, where TensorRT-RTX supports no product with int8 weights"
    elif precision != "bf16":
        expected, found, todo = "--precision bf16", _WHY[precision], "add --precision bf16, or leave out --quantize"
    elif weights != "shared":
        expected, found = "--weights shared", f"--weights {weights}"
        todo = "leave out one of the two: budgets read one quantised file, which every runtime slices"
    elif external:
        expected, found = "the quantised file in the bundle", "--external-weights"
        todo = "leave out one of the two: only the parent's own shards can stay outside"
    if found:
        raise InputError(subject, expected=expected, found=found, todo=todo)
    eight_bits = eight_bits_of(checkpoint)
    if not any(matrix.transposed for matrix in eight_bits.matrices):
        expected, found = "linear layers of even sizes", f"odd ones alone, {eight_bits.odd[0]} the first"
        raise InputError(subject, expected=expected, found=found, todo="leave out --quantize")
    return eight_bits


def goes_with_int8(checkpoint: Checkpoint, precision: Precision, weights: str, targets: Iterable[Target]) -> bool:
    """Whether `plan_eight_bits` would take that, shards in the bundle."""
    try:
        plan_eight_bits(checkpoint, precision, weights, external=False, targets=targets)
    except InputError:
        return False
    return True


def odd_note(eight_bits: EightBits) -> str:
    """What a user should be told of matrices that stay as they are; empty where none does."""
    if not (odd := eight_bits.odd):
        return ""
    more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
    does = "stays" if len(odd) == 1 else "stay"
    return (
        f"--quantize int8: {', '.join(odd[:_SHOWN])}{more} {does} in bf16: of odd sizes in the parent or in a budget, "
        "and such an int8 weight would be copied at each call"
    )


def weight_bytes(checkpoint: Checkpoint, budget: Budget, precision: Precision, eight_bits: EightBits | None) -> int:
    """Bytes of the weights that a budget binds: values of one byte and a float32 scale a row where they are in eight
    bits.
    """
    shapes = {n: runs_shape(r) for n, r in tensor_runs(checkpoint.architecture, budget, checkpoint.prefix).items()}
    return _bytes(checkpoint, shapes.items(), precision, eight_bits)


def model_bytes(model: Architecture, precision: Precision) -> int:
    """`weight_bytes` of a model that no budget file has yet, where its parent and all budgets have even matrices as it
    has.
    """
    quantised, total = EightBits.of(model, ()).tensors, 0
    for name, shape in model.tensor_shapes().items():
        total += _int8(shape) if name in quantised else math.prod(shape) * itemsize(precision)
    return total


def check_even(parent: Architecture, precision: Precision) -> None:
    """Whether what a budget takes in eight bits follows from its own shapes. Raises InputError."""
    subject, odd = "--quantize int8", EightBits.of(parent, ()).odd
    if precision != "bf16":
        todo = "add --precision bf16, or leave out --quantize"
        raise InputError(subject, expected="--precision bf16", found=_WHY[precision], todo=todo)
    if odd:
        expected = "a parent of even matrices alone, so that what a budget takes is known before it is found"
        raise InputError(subject, expected=expected, found=f"odd ones, {odd[0]} the first", todo="leave out --quantize")


def parent_bytes(checkpoint: Checkpoint, precision: Precision, eight_bits: EightBits) -> int:
    """Bytes of the quantised file's tensors, those that are not quantised with them."""
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    return _bytes(checkpoint, shapes.items(), precision, eight_bits)


def largest_matrix(eight_bits: EightBits) -> int:
    """Bytes of the largest matrix: what quantising holds in memory, and little beside it."""
    return max(math.prod(matrix.shape) for matrix in eight_bits.matrices)


def _bytes(
    checkpoint: Checkpoint,
    shapes: Iterable[tuple[str, tuple[int, ...]]],
    precision: Precision,
    eight_bits: EightBits | None,
) -> int:
    quantised, total = eight_bits.tensors if eight_bits else {}, 0
    for name, shape in shapes:
        dtype = stored_dtype(checkpoint.tensors[name].dtype, checkpoint.dtype, precision)
        total += _int8(shape) if name in quantised else math.prod(shape) * itemsize(dtype)
    return total


def _int8(shape: tuple[int, ...]) -> int:
    """A byte a value, and a float32 scale a row."""
    return math.prod(shape) + 4 * shape[0]
