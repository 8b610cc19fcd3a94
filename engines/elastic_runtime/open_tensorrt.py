"""Opening a budget's engine on a card: checks first, then weights to the device, then contexts."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from elastic_runtime.backend import Backend
from elastic_runtime.backend_tensorrt import EngineBackend, check_bindings
from elastic_runtime.bundle import Bundle
from elastic_runtime.choose import choose
from elastic_runtime.device import Arena, Device
from elastic_runtime.device_cuda import CudaDevice
from elastic_runtime.device_weights import upload_weights
from elastic_runtime.manifest import BudgetEntry, EngineEntry
from elastic_runtime.mapped import MappedFile
from elastic_runtime.memory import Card
from elastic_runtime.preflight import (
    UnavailableError,
    cache_folder,
    check_card,
    check_memory,
    check_version,
    find_plugin,
    installed_version,
    untested,
)

Say = Callable[[str], None]


class Wishes(Protocol):
    """What a request says about engines."""

    @property
    def context(self) -> int | None:
        """Tokens that must be possible."""

    @property
    def batch(self) -> int:
        """Rows."""

    @property
    def plugin_folder(self) -> Path | None:
        """Where plugin libraries are."""

    @property
    def cache_folder(self) -> Path | None:
        """Where compiled kernels are kept."""


@dataclass(frozen=True)
class Loaded:
    """The parts of an engine backend that TensorRT makes; a test makes others."""

    trt: Any
    device: Device


def open_tensorrt(
    bundle: Bundle,
    budget: BudgetEntry,
    wishes: Wishes,
    card: Card,
    *,
    files: dict[Path, MappedFile] | None = None,
    say: Say,
) -> Backend:
    """The engine with the smallest context that suffices.

    Raises:
        UnavailableError: there is none, or it cannot run here (preflight.py).
    """
    choice = choose(
        [budget],
        vram=card.free,
        context=wishes.context or 1,
        batch=wishes.batch,
        compute_capability=card.compute_capability,
    )
    (reckoning,) = choice.reckonings
    if reckoning.engine is None:
        raise UnavailableError(
            f"budget {budget.name!r}", expected=f"an engine for {card.name}", found=reckoning.refusal
        )
    return open_engine(bundle, budget, reckoning.engine, wishes, card, files=files, say=say)


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
    plugin = _check(bundle, budget, engine, wishes, card)
    if warning := untested(engine):
        say(warning)
    device = CudaDevice()
    loaded = Loaded(importlib.import_module("tensorrt_rtx"), device)
    try:
        return _load(loaded, bundle, budget, engine, wishes, card, plugin, files, say)
    except BaseException:
        device.close()
        raise


def _check(bundle: Bundle, budget: BudgetEntry, engine: EngineEntry, wishes: Wishes, card: Card) -> Path | None:
    check_card(engine, card)
    check_version(engine, installed_version())
    folders = [wishes.plugin_folder, bundle.path, (bundle.path / engine.file).parent]
    plugin = find_plugin(engine.plugin, [folder for folder in folders if folder is not None])
    check_memory(budget, engine, card, batch=wishes.batch)
    return plugin


def _load(
    loaded: Loaded,
    bundle: Bundle,
    budget: BudgetEntry,
    engine: EngineEntry,
    wishes: Wishes,
    card: Card,
    plugin: Path | None,
    files: dict[Path, MappedFile] | None,
    say: Say,
) -> Backend:
    from elastic_runtime.trt_engine import TrtEngine  # noqa: PLC0415

    device, path = loaded.device, bundle.path / engine.file
    cache = cache_folder(wishes.cache_folder) / _cache_name(bundle, engine, card)
    opened = TrtEngine(loaded.trt, engine, path, device, plugin=plugin, cache=cache, say=say)
    weights = _weights(device, bundle, budget, files)
    check_bindings(engine, set(weights.addresses), opened.tensors())
    opened.check_aliases()
    return EngineBackend(
        engine,
        device,
        opened.executors(),
        weights,
        batch=wishes.batch,
        vocab_size=budget.widths.vocab_size,
        scratch=opened.scratch,
        on_close=opened.close,
        say=say,
    )


def _weights(device: Device, bundle: Bundle, budget: BudgetEntry, files: dict[Path, MappedFile] | None) -> Arena:
    if budget.weights is None:
        return Arena(device, {})  # they are inside the engine
    folder = (bundle.path / budget.weights).parent
    return upload_weights(device, bundle.recipe(budget), folder, external=bundle.external, files=files)


def _cache_name(bundle: Bundle, engine: EngineEntry, card: Card) -> str:
    """A cache serves one engine on one kind of card; TensorRT itself refuses one of another driver or version."""
    entry = bundle.manifest.file(engine.file)
    digest = entry.sha256[:16] if entry else "unlisted"
    return f"{digest}-{re.sub('[^A-Za-z0-9]+', '-', card.name)}.cache"
