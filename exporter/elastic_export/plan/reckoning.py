"""A sub-model in the words of the manifest: widths and memory. States and interface come from the emitted graph."""

from __future__ import annotations

from elastic_export.layers.all_kinds import AXES
from elastic_export.layers.architecture import Architecture
from elastic_export.plan.activation import estimated_activation
from elastic_export.plan.limits import MAX_TOKENS
from elastic_export.products import TENSORRT_RTX, Product
from elastic_runtime.fit.targets import Target
from elastic_runtime.fit.vram import vram_needed
from elastic_runtime.format.budget_size import Activation, BudgetSize
from elastic_runtime.format.interface import OpsMode, Precision
from elastic_runtime.format.manifest import Fits, Widths
from elastic_runtime.format.safetensors import itemsize


def widths(model: Architecture) -> Widths:
    """The widths of a sub-model."""
    return Widths(**{axis.field: getattr(model, axis.field) for axis in AXES})


def has_scalar_widths(model: Architecture) -> bool:
    """Whether one number a layer kind says all: then tools that know no lists can load its config."""
    return all(len(set(getattr(model, axis.field))) <= 1 for axis in AXES if axis.per_layer)


def budget_size(
    name: str,
    model: Architecture,
    precision: Precision,
    *,
    weight_bytes: int | None = None,
    activation: Activation | None = None,
    max_tokens: int = MAX_TOKENS,
    max_batch: int = 1,
    ops: OpsMode = "plugin",
    every_token: bool = False,
    product: Product = TENSORRT_RTX,
) -> BudgetSize:
    """What the memory of a sub-model depends on; weights and activation memory are reckoned where they are not
    known.
    """
    size, parameters = itemsize(precision), model.parameters()
    estimate = estimated_activation(
        model,
        precision,
        max_tokens=max_tokens,
        max_batch=max_batch,
        ops=ops,
        every_token=every_token,
        product=product,
    )
    return BudgetSize(
        name,
        parameters,
        weight_bytes if weight_bytes is not None else parameters * size,
        model.state_bytes(size),
        model.kv_bytes_per_token(size),
        activation or estimate,
    )


def fits(size: BudgetSize, target: Target, *, context: int, batch: int) -> Fits:
    """The manifest's reckoning of one engine."""
    need, usable = vram_needed(size, context=context, batch=batch), target.usable_bytes
    return Fits(
        context,
        batch,
        need.weights,
        need.states,
        need.caches,
        need.activation,
        need.activation_measured,
        need.reserve,
        need.total,
        usable,
        None if usable is None else need.total <= usable,
    )
