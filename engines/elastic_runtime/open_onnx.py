"""Opening a budget of a bundle on onnxruntime: how its weights are held, and whether that fits the memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from elastic_runtime.backend import Backend
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.fit import gib
from elastic_runtime.manifest import BudgetEntry
from elastic_runtime.mapped import MappedFile
from elastic_runtime.memory import free_ram
from elastic_runtime.weights import WeightRecipe, iter_weights

WeightForm = Literal["auto", "float32", "stored"]
MAX_BATCH = 64
_DEFAULT_CONTEXT, _DEFAULT_TOKENS = 4096, 256
_ARENA = 256 << 20  # bytes: onnxruntime itself, its buffers of one call


@dataclass(frozen=True)
class RamNeed:
    """Bytes of main memory that a budget takes on the CPU, by form of its weights."""

    float32: int
    stored: int

    def form(self, wanted: WeightForm, free: int, budget: str) -> Literal["float32", "stored"]:
        """The form to hold weights in: as wanted, else the faster one that fits.

        Raises:
            BuildError: not enough memory; it says how much it would take.
        """
        if wanted in ("auto", "float32") and self.float32 <= free:
            return "float32"
        if wanted in ("auto", "stored") and self.stored <= free:
            return "stored"
        need = self.float32 if wanted == "float32" else self.stored
        raise BuildError(
            f"budget {budget!r} on the CPU",
            expected=f"{gib(need)} GiB of free memory (float32 arithmetic, weights {_FORMS[wanted]})",
            found=f"{gib(max(free, 0))} GiB",
            todo="take a smaller budget or context, or run its engine on a card",
        )


_FORMS = {"auto": "as stored", "stored": "as stored", "float32": "in float32"}


def ram_needed(budget: BudgetEntry, recipe: WeightRecipe | None, *, context: int, batch: int) -> RamNeed:
    """What the CPU takes: weights, two banks of float32 states, and one wide weight at a time where they are stored."""
    states = 2 * batch * 2 * (budget.state_bytes + budget.kv_bytes_per_token * context)  # a 16-bit state doubles
    if recipe is None:
        return RamNeed(4 * budget.parameters + states + _ARENA, 4 * budget.parameters + states + _ARENA)
    largest = max(4 * math.prod(item.shape) for item in recipe.inputs)
    narrow = sum(item.nbytes for item in recipe.inputs)
    return RamNeed(4 * budget.parameters + largest + states + _ARENA, narrow + largest + states + _ARENA)


def context_of(budget: BudgetEntry, context: int | None) -> int:
    """The context to open: as asked, else that of the largest engine."""
    if context is not None and context < 1:
        raise InputError("context", expected="at least 1", found=str(context))
    return context or max((engine.max_context for engine in budget.engines), default=_DEFAULT_CONTEXT)


def open_onnx(
    bundle: Bundle,
    budget: BudgetEntry,
    *,
    context: int | None = None,
    batch: int = MAX_BATCH,
    max_tokens: int | None = None,
    weights: WeightForm = "auto",
    threads: int = 0,
    files: dict[Path, MappedFile] | None = None,
) -> Backend:
    """The `Backend` that runs a budget's model.onnx on the CPU.

    Args:
        bundle: where it lies.
        budget: which.
        context: most tokens of a sequence; None takes the largest engine's.
        batch: most rows.
        max_tokens: of a call; None takes the engines'.
        weights: `float32` converts 16-bit weights once, `stored` at every call, `auto` takes what fits the memory.
        threads: of one op; 0 leaves the choice to onnxruntime.
        files: mappings to share with other budgets.

    Raises:
        BuildError: onnxruntime is not installed, the memory is not enough.
    """
    onnx, backend, widened = _packages()
    context = context_of(budget, context)
    recipe = None if budget.weights is None else bundle.recipe(budget)
    form = ram_needed(budget, recipe, context=context, batch=1).form(weights, free_ram(), budget.name)
    tokens = max_tokens or min((engine.max_tokens for engine in budget.engines), default=_DEFAULT_TOKENS)

    def arrays() -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
        if recipe is None or budget.weights is None:
            return
        folder = (bundle.path / budget.weights).parent
        for name, array in iter_weights(recipe, folder, external=bundle.external, files=files):
            yield name, widened(array) if form == "float32" else array

    opened: Backend = backend(
        onnx.load(bundle.path / budget.model, load_external_data=recipe is None),
        arrays(),
        wide_weights=form == "float32",
        max_tokens=min(tokens, context),
        max_context=context,
        max_batch=batch,
        threads=threads,
    )
    return opened


def _packages() -> tuple[Any, Any, Any]:
    try:
        import onnx  # noqa: PLC0415  # an engine's consumer needs neither

        from elastic_runtime.backend_onnx import OnnxBackend, widened  # noqa: PLC0415
    except ImportError as error:
        raise BuildError(
            "the onnxruntime backend",
            expected="the packages onnx and onnxruntime",
            found=str(error),
            todo="pip install onnx onnxruntime",
        ) from error
    return onnx, OnnxBackend, widened
