"""Opening a budget's engine on a card: checks first, then weights to the device, then contexts."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from traceback import clear_frames
from typing import Protocol

from elastic_runtime.backend import Backend
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.cuda import CudaDevice, driver_version
from elastic_runtime.driver.device import Arena, Device
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import UnavailableError
from elastic_runtime.fit.choose import choose
from elastic_runtime.fit.vram import gib
from elastic_runtime.format.manifest import BudgetEntry, EngineEntry
from elastic_runtime.format.manifest_reader import DamageError
from elastic_runtime.format.mapped import MappedFile
from elastic_runtime.format.paths import inside
from elastic_runtime.format.weights import WeightRecipe
from elastic_runtime.tensorrt.backend_tensorrt import EngineBackend, check_bindings
from elastic_runtime.tensorrt.device_weights import upload_weights
from elastic_runtime.tensorrt.engine_cache import cache_folder, kernels_file, remembered, unkept
from elastic_runtime.tensorrt.plugin_library import PluginSource, plugin_source, read_engine
from elastic_runtime.tensorrt.preflight import (
    check_card,
    check_driver,
    check_memory,
    check_version,
    crowded,
    installed_version,
    load_tensorrt,
    package_cuda,
    untested,
)

Say = Callable[[str], None]
_QUICK = 256 << 20  # bytes: digested in a fifth of a second


class Wishes(Protocol):
    """What a request says about engines."""

    @property
    def vram(self) -> int | None:
        """Bytes of the card's memory that may be taken; None: all that is free."""

    @property
    def context(self) -> int | None:
        """Tokens that must be possible; None: as many as the memory allows."""

    @property
    def batch(self) -> int:
        """Rows."""

    @property
    def plugin_folder(self) -> Path | None:
        """Where plugin libraries are."""

    @property
    def trust_engine(self) -> bool:
        """Whether the caller vouches for code inside engines."""

    @property
    def cache_folder(self) -> Path | None:
        """Where compiled kernels are kept."""


class Weighted(Protocol):
    """What loading weights asks of an engine."""

    def tensors(self) -> set[str]:
        """Names of all inputs and outputs."""

    def check_weights(self, recipe: WeightRecipe) -> None:
        """Whether they are those that it takes. Raises InputError."""


def open_tensorrt(
    bundle: Bundle,
    budget: BudgetEntry,
    wishes: Wishes,
    card: Card,
    *,
    at_least: int = 1,
    files: dict[Path, MappedFile] | None = None,
    say: Say,
) -> Backend:
    """The engine that `choose` takes for the wishes, on that card.

    Args:
        bundle: where it lies.
        budget: which.
        wishes: of the request.
        card: with the memory that is free.
        at_least: tokens that must be possible, whatever the wishes say.
        files: mappings to share with other budgets.
        say: hears of warnings.

    Raises:
        UnavailableError: there is none, or it cannot run here (preflight.py).
    """
    engine = select_engine(budget, wishes, card, at_least=at_least)
    return open_engine(bundle, budget, engine, wishes, card, files=files, say=say)


def select_engine(budget: BudgetEntry, wishes: Wishes, card: Card, *, at_least: int = 1) -> EngineEntry:
    """The engine that `choose` takes.

    Raises:
        UnavailableError: there is none, or none within the memory that was named. Whether the card has as much free
            is for `check_engine` to say.
    """
    limit = card.free if wishes.vram is None else min(wishes.vram, card.free)
    choice = choose(
        [budget],
        vram=limit,
        context=wishes.context,
        at_least=at_least,
        batch=wishes.batch,
        compute_capability=card.compute_capability,
    )
    (reckoning,) = choice.reckonings
    if reckoning.engine is None:
        expected, todo = (
            f"an engine for {card.name}",
            "export for this card with --target, or take the backend onnxruntime",
        )
        if any(card.compute_capability in each.compute_capabilities for each in budget.engines):
            todo = f"take a smaller context, {todo}"
        raise UnavailableError(f"budget {budget.name!r}", expected=expected, found=reckoning.refusal, todo=todo)
    if wishes.vram is not None and reckoning.need and not reckoning.fits:
        raise UnavailableError(
            f"budget {budget.name!r} on {card.name}",
            expected=f"{gib(reckoning.need.total)} GiB of memory to take ({reckoning.need.text()})",
            found=f"{gib(limit)} GiB, of {gib(wishes.vram)} named and {gib(card.free)} free",
            todo="name more memory, or take a smaller budget or an engine of a smaller context",
        )
    return reckoning.engine


def open_engine(
    bundle: Bundle,
    budget: BudgetEntry,
    engine: EngineEntry,
    wishes: Wishes,
    card: Card,
    *,
    files: dict[Path, MappedFile] | None = None,
    say: Say,
) -> Backend:
    """That engine. Raises UnavailableError where it cannot run, BuildError where device or TensorRT fail."""
    plugins = check_engine(budget, engine, wishes, card)
    folder = cache_folder(wishes.cache_folder)
    kernels = kernels_file(folder, bundle.manifest, engine, card.name)
    nowhere = unkept(kernels)
    for warning in (
        untested(engine, remembered(folder, bundle.manifest, engine, card.name)),
        crowded(budget, engine, card, batch=wishes.batch),
        nowhere,
    ):
        if warning:
            say(warning)
    return _load(bundle, budget, engine, wishes, None if nowhere else kernels, plugins, files, say)


def check_engine(budget: BudgetEntry, engine: EngineEntry, wishes: Wishes, card: Card) -> PluginSource:
    """Whether the engine can run there now; where its plugins come from. Its file is not read: `read_checked` does.

    Raises:
        UnavailableError: it cannot.
    """
    plugins = check_runs(engine, wishes, card)
    check_memory(budget, engine, card, batch=wishes.batch)
    return plugins


def read_checked(bundle: Bundle, engine: EngineEntry) -> bytes:
    """The engine's file.

    Raises:
        DamageError: it holds code that the manifest does not list, or is not the file that was written (asked of those
            that are quickly digested: not of one with a large model's weights inside).
    """
    path = inside(bundle.path, engine.file, engine.file)
    data, entry = read_engine(engine, path), bundle.manifest.file(engine.file)
    if entry is not None and len(data) <= _QUICK and (found := hashlib.sha256(data).hexdigest()) != entry.sha256:
        expected, todo = f"sha256 {entry.sha256[:12]}…", "copy the bundle again, or export it again"
        raise DamageError(str(path), expected=expected, found=f"{found[:12]}…", todo=todo)
    return data


def check_runs(engine: EngineEntry, wishes: Wishes, card: Card) -> PluginSource:
    """Whether the engine could run there, were there memory; its file is not read. Raises UnavailableError."""
    check_card(engine, card)
    check_version(engine, installed_version())
    check_driver(engine, driver_version(), package_cuda())
    return plugin_source(engine, card.compute_capability, given=wishes.plugin_folder, trusted=wishes.trust_engine)


def _load(
    bundle: Bundle,
    budget: BudgetEntry,
    engine: EngineEntry,
    wishes: Wishes,
    kernels: Path | None,
    plugins: PluginSource,
    files: dict[Path, MappedFile] | None,
    say: Say,
) -> Backend:
    """The backend; what was made before a failure is given back."""
    from elastic_runtime.tensorrt.trt_engine import TrtEngine  # noqa: PLC0415

    data = read_checked(bundle, engine)
    trt = load_tensorrt()
    with ExitStack() as undo, _frames_cleared():
        device = CudaDevice()
        undo.callback(device.close)
        opened = TrtEngine(
            trt, engine, data, device, plugin=plugins.library, host_code=plugins.carried, cache=kernels, say=say
        )
        del data  # as large as the model, where an engine has its weights inside
        undo.callback(opened.close)
        opened.check_locations()
        opened.check_logits()
        opened.check_aliases()
        weights = load_weights(opened, device, bundle, budget, engine, files=files)
        undo.callback(weights.free)
        backend = EngineBackend(
            engine,
            device,
            opened.executors(),
            weights,
            batch=wishes.batch,
            vocab_size=budget.widths.vocab_size,
            scratch=opened.scratch,
            origin=bundle.origin(budget),
            on_close=opened.close,
            say=say,
        )
        undo.pop_all()
        return backend


@contextmanager
def _frames_cleared() -> Iterator[None]:
    """Around work whose error would keep alive what its frames hold: that has to end before the device does."""
    before = sys.exc_info()[1]  # what the caller is handling is the caller's
    try:
        yield
    except BaseException as error:
        each: BaseException | None = error
        while each is not None and each is not before:
            clear_frames(each.__traceback__)
            each = each.__context__
        raise


def load_weights(
    opened: Weighted,
    device: Device,
    bundle: Bundle,
    budget: BudgetEntry,
    engine: EngineEntry,
    *,
    files: dict[Path, MappedFile] | None = None,
) -> Arena:
    """The weights on the device, of an engine that was read; nothing where they are inside it.

    Raises:
        BuildError: its tensors are not those of manifest and weights.json. Nothing is on the device then.
        InputError: weights.json has others than it takes; as `upload_weights` about files.
    """
    recipe = None if budget.weights is None else bundle.recipe(budget)
    check_bindings(engine, {item.name for item in recipe.inputs} if recipe else set(), opened.tensors())
    if recipe is None or budget.weights is None:
        return Arena(device, {})
    opened.check_weights(recipe)
    folder = (bundle.path / budget.weights).parent
    return upload_weights(device, recipe, folder, external=bundle.external, files=files)
