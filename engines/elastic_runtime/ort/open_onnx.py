"""Opening a budget of a bundle on onnxruntime: how its weights are held, and whether that fits the memory.

On the CPU, or on a card through onnxruntime's CUDA provider.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from elastic_runtime.backend import Backend
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card, free_ram
from elastic_runtime.errors import BuildError, ElasticError, NoCudaError, UnavailableError, is_interrupted
from elastic_runtime.fit.vram import check_count, gib
from elastic_runtime.format.interface import Precision
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.format.mapped import MappedFile
from elastic_runtime.format.weights import WeightRecipe, iter_weights
from elastic_runtime.ort.advice import UPDATE

WeightForm = Literal["auto", "float32", "stored"]
MAX_BATCH = 64
_DEFAULT_CONTEXT, _DEFAULT_TOKENS = 4096, 256
_ARENA = 256 << 20  # bytes: onnxruntime itself, its buffers of one call
_CARD_MARGIN = 3 << 29  # bytes: CUDA's context and libraries, onnxruntime's buffers of one call; not measured


@dataclass(frozen=True)
class RamNeed:
    """Bytes of main memory that a budget takes on the CPU, by form of its weights."""

    float32: int
    stored: int

    def least(self, wanted: WeightForm) -> int:
        """What the form takes that is wanted; of `auto` the smaller one."""
        return self.float32 if wanted == "float32" else self.stored

    def form(self, wanted: WeightForm, free: int, budget: str) -> Literal["float32", "stored"]:
        """The form to hold weights in: as wanted, else the faster one that fits.

        Raises:
            UnavailableError: not enough memory; it says how much it would take.
        """
        if wanted in ("auto", "float32") and self.float32 <= free:
            return "float32"
        if wanted in ("auto", "stored") and self.stored <= free:
            return "stored"
        need = self.least(wanted)
        raise UnavailableError(
            f"budget {budget!r} on the CPU",
            expected=f"{gib(need)} GiB of free memory (float32 arithmetic, weights {_FORMS[wanted]})",
            found=f"{gib(max(free, 0))} GiB",
            todo="take a smaller budget or context, or run its engine on a card",
        )


_FORMS = {"auto": "as stored", "stored": "as stored", "float32": "in float32"}


def ram_needed(
    budget: BudgetEntry, recipe: WeightRecipe | None, *, context: int, batch: int, precision: Precision
) -> RamNeed:
    """What the CPU takes: weights, two banks of float32 states, and one wide weight at a time where they are stored.

    Int8 values stay as they are in both forms: each call dequantises one matrix after the other.
    """
    states = 2 * batch * _float32_states(budget, context, precision)
    if recipe is None:
        return RamNeed(4 * budget.parameters + states + _ARENA, 4 * budget.parameters + states + _ARENA)
    largest = max((4 * math.prod(item.shape) for item in recipe.inputs), default=0)
    narrow = sum(item.nbytes for item in recipe.inputs)
    return RamNeed(_widened(recipe) + largest + states + _ARENA, narrow + largest + states + _ARENA)


def _widened(recipe: WeightRecipe) -> int:
    """Bytes of the weights in float32; int8 values stay as they are."""
    return sum(item.nbytes if item.dtype == "int8" else 4 * math.prod(item.shape) for item in recipe.inputs)


def _float32_states(budget: BudgetEntry, context: int, precision: Precision) -> int:
    """Bytes of a sequence's states in float32: SSM states are that already, the others double where they are narrow."""
    widths, factor = budget.widths, 1 if precision == "fp32" else 2
    ssm = 4 * sum(widths.mamba_heads) * widths.mamba_head_dim * widths.ssm_state
    return ssm + factor * (budget.state_bytes - ssm + budget.kv_bytes_per_token * context)


def contexts_of(budget: BudgetEntry, context: int | None, at_least: int = 1) -> tuple[int, ...]:
    """The contexts to try, best first: as asked and no other, else those of the engines from the largest on.

    None is below `at_least`. Raises InputError about an absurd one.
    """
    if context is not None:
        check_count("context", context)
        return (max(context, at_least),)
    found = {max(engine.max_context, at_least) for engine in budget.engines}
    return tuple(sorted(found, reverse=True)) or (max(_DEFAULT_CONTEXT, at_least),)


def _recipe(bundle: Bundle, budget: BudgetEntry) -> WeightRecipe | None:
    """None where the weights are embedded."""
    return None if budget.weights is None else bundle.recipe(budget)


@dataclass(frozen=True)
class CpuPlan:
    """How a budget would be held on the CPU: tokens of its context, and what that takes."""

    context: int
    need: RamNeed


def plan_cpu(
    bundle: Bundle,
    budget: BudgetEntry,
    *,
    context: int | None,
    rows: int,
    weights: WeightForm,
    free: int,
    at_least: int = 1,
) -> CpuPlan:
    """The first of `contexts_of` that fits `free` bytes, the smallest where none does."""
    recipe = _recipe(bundle, budget)
    plans = [
        CpuPlan(c, ram_needed(budget, recipe, context=c, batch=rows, precision=bundle.manifest.precision))
        for c in contexts_of(budget, context, at_least)
    ]
    return next((plan for plan in plans if plan.need.least(weights) <= free), plans[-1])


@dataclass(frozen=True)
class OnnxCard:
    """A card that onnxruntime computes on, and the bytes of its memory that may be taken."""

    card: Card
    free: int


def onnx_card(found: Card | None, *, vram: int | None, weights: WeightForm) -> OnnxCard:
    """The card that was found, for onnxruntime.

    Args:
        found: None where there is none.
        vram: bytes that may be taken; None: all that is free.
        weights: `stored` keeps to the CPU, for on a card they are float32.

    Raises:
        UnavailableError: onnxruntime cannot compute there; `found` says why.
    """
    if found is None:
        raise NoCudaError("no NVIDIA card")
    if weights == "stored":
        raise NoCudaError("a wish for weights as stored, which is a form of the CPU")
    try:
        from elastic_runtime.ort.onnx_memory import check_cuda  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(error) from error
    check_cuda()
    return OnnxCard(found, found.free if vram is None else min(vram, found.free))


def given_back(place: OnnxCard, backend: Backend, vram: int | None) -> OnnxCard:
    """The place with what a backend that will close holds on it."""
    held = sum(backend.memory().values()) if backend.device == "gpu" else 0
    free = place.card.free + held
    return replace(place, free=free if vram is None else min(vram, free))


def card_needed(
    budget: BudgetEntry, recipe: WeightRecipe | None, *, context: int, batch: int, precision: Precision
) -> int:
    """Bytes that the float32 twin takes on a card: weights, two banks of states with whole caches, a margin (not
    measured).

    Int8 values lie there as they are, and each call dequantises one matrix after the other: the largest counts.
    """
    states = 2 * batch * _float32_states(budget, context, precision)
    if recipe is None:
        return 4 * budget.parameters + states + _CARD_MARGIN
    dequantised = max((4 * math.prod(item.shape) for item in recipe.inputs if item.dtype == "int8"), default=0)
    return _widened(recipe) + dequantised + states + _CARD_MARGIN


def plan_card(
    bundle: Bundle, budget: BudgetEntry, place: OnnxCard, *, context: int | None, rows: int, at_least: int = 1
) -> int:
    """Tokens of the first of `contexts_of` that fits the card. Raises UnavailableError where none does."""
    precision, contexts = bundle.manifest.precision, contexts_of(budget, context, at_least)
    recipe = _recipe(bundle, budget)
    needs = {c: card_needed(budget, recipe, context=c, batch=rows, precision=precision) for c in contexts}
    for tokens, need in needs.items():
        if need <= place.free:
            return tokens
    raise UnavailableError(
        f"budget {budget.name!r} under onnxruntime on {place.card.name}",
        expected=f"{gib(needs[contexts[-1]])} GiB of free memory for its float32 twin",
        found=f"{gib(place.free)} GiB",
        todo="take a smaller budget or context, or run on the CPU (--device cpu)",
    )


def open_onnx(
    bundle: Bundle,
    budget: BudgetEntry,
    *,
    context: int | None = None,
    at_least: int = 1,
    rows: int = 1,
    batch: int = MAX_BATCH,
    max_tokens: int | None = None,
    weights: WeightForm = "auto",
    threads: int = 0,
    files: dict[Path, MappedFile] | None = None,
    place: OnnxCard | None = None,
    profile: Path | None = None,
) -> Backend:
    """The `Backend` that runs a budget's model.onnx.

    Args:
        bundle: where it lies.
        budget: which.
        context: most tokens of a sequence; None takes the largest engine's that fits the memory.
        at_least: tokens that must be possible, whatever `context` says.
        rows: that will be used: for the reckoning of memory, and their states are allocated.
        batch: most rows; the states of another number are allocated when they are used.
        max_tokens: of a call; None takes the engines', 256 at most.
        weights: `float32` converts 16-bit weights once, `stored` at every call, `auto` takes what fits the memory.
        threads: of one op; 0 leaves the choice to onnxruntime.
        files: mappings to share with other budgets.
        place: the card to run on, weights always in float32; None is the CPU.
        profile: what the file begins with that onnxruntime's profile goes to; None: no profile.

    Raises:
        NoCudaError: onnxruntime does not run on the card after all.
        UnavailableError: onnxruntime is not installed, the memory is not enough, or others took the card's meanwhile.
        InputError: weights.json or the manifest does not say what the model is; nothing was read.
        BuildError: the file is no model that onnxruntime runs.
    """
    onnx, backend, model_checks = _packages()
    recipe = _recipe(bundle, budget)
    form: WeightForm = "float32"
    if place is not None:
        context = plan_card(bundle, budget, place, context=context, rows=rows, at_least=at_least)
    else:
        free = free_ram()
        plan = plan_cpu(bundle, budget, context=context, rows=rows, weights=weights, free=free, at_least=at_least)
        form, context = plan.need.form(weights, free, budget.name), plan.context
    # The reckoning of memory is of calls of up to 256 tokens: longer ones, which a card likes, win nothing here.
    tokens = max_tokens or min([_DEFAULT_TOKENS, *(engine.max_tokens for engine in budget.engines)])

    def arrays() -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
        if recipe is None or budget.weights is None:
            return
        folder = (bundle.path / budget.weights).parent
        for name, array in iter_weights(recipe, folder, external=bundle.external, files=files):
            yield name, backend.widened(array) if form == "float32" else array

    path = bundle.path / budget.model
    try:
        model = onnx.load(path, load_external_data=recipe is None)
        model_checks.check_logits(model, budget.widths.vocab_size, bundle.manifest.logits)
        if recipe is not None:
            model_checks.check_weights(model, recipe)
        opened: Backend = backend.OnnxBackend(
            model,
            arrays(),
            wide_weights=form == "float32",
            max_tokens=min(tokens, context),
            max_context=context,
            max_batch=batch,
            rows=rows,
            threads=threads,
            memory=_memory(place),
            profile=profile,
            origin=bundle.origin(budget),
        )
    except (ElasticError, MemoryError):
        raise
    except Exception as error:  # protobuf and onnx refuse a file that makes no sense in many ways
        found = f"{type(error).__name__}: {error}".strip()
        raise BuildError(str(path), expected="a model that onnxruntime runs", found=found, todo=UPDATE) from error
    return opened


def _packages() -> tuple[ModuleType, ModuleType, ModuleType]:
    try:
        import onnx  # noqa: PLC0415  # an engine's consumer needs neither

        from elastic_runtime.ort import backend_onnx, model_checks  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(error) from error
    return onnx, backend_onnx, model_checks


def _memory(place: OnnxCard | None) -> Any:
    from elastic_runtime.ort.onnx_memory import CudaMemory, HostMemory  # noqa: PLC0415  # needs onnxruntime

    return HostMemory() if place is None else CudaMemory()


def missing_package(error: ImportError) -> UnavailableError:
    """The user's error for a package of this room that cannot be imported. Raises KeyboardInterrupt where that is why:
    another place would be tried in place of this one.
    """
    if is_interrupted(error):
        raise KeyboardInterrupt from error
    # Only what is missing: beside an onnxruntime-gpu that is there, a second onnxruntime would overwrite its files.
    which = "onnx" if error.name == "onnx" else "onnxruntime (on a card 'onnxruntime-gpu[cuda,cudnn]' in its place)"
    return UnavailableError(
        "the onnxruntime backend",
        expected="the packages onnx and onnxruntime",
        found=str(error),
        todo=f"pip install {which}",
    )
