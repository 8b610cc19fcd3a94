"""Whether an engine can run here, found out before anything loads."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import UnavailableError
from elastic_runtime.fit.vram import gib, vram_needed
from elastic_runtime.format.manifest import BudgetEntry, EngineEntry, Status

PACKAGE = "tensorrt-rtx"


def check_card(engine: EngineEntry, card: Card) -> None:
    """Raise UnavailableError about a card of another class."""
    if card.compute_capability not in engine.compute_capabilities:
        raise UnavailableError(
            engine.file,
            expected=f"a card of compute capability {', '.join(engine.compute_capabilities)}",
            found=f"{card.name} with {card.compute_capability}",
            todo="export the bundle for it with another --target",
        )


def check_version(engine: EngineEntry, installed: str | None) -> None:
    """Raise UnavailableError unless the TensorRT that built the engine is installed (build numbers aside)."""
    if engine.flavour != PACKAGE:
        expected, todo = f"an engine of {PACKAGE}, which this runtime drives", f"export the bundle again with {PACKAGE}"
        raise UnavailableError(engine.file, expected=expected, found=f"one of {engine.flavour}", todo=todo)
    # An engine is of the release that built it. Asked before anything loads, so that the answer names the package.
    wanted = ".".join(engine.version.split(".")[:3])
    if installed is None or installed.split(".")[:3] != engine.version.split(".")[:3]:
        found = f"{PACKAGE} {installed}" if installed else "no such package"
        todo = f"pip install {PACKAGE}=={wanted}.*"
        raise UnavailableError(engine.file, expected=f"{PACKAGE} {wanted}", found=found, todo=todo)


def installed_version() -> str | None:
    """Version of the tensorrt-rtx package, not loaded for it; None where there is none."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_memory(budget: BudgetEntry, engine: EngineEntry, card: Card, *, batch: int) -> None:
    """Raise UnavailableError when the card has not enough free memory now, for `batch` rows of the whole context."""
    need = vram_needed(budget.size(engine), context=engine.max_context, batch=batch)
    if need.total > card.free:
        raise UnavailableError(
            f"budget {budget.name!r} on {card.name}",
            expected=f"{gib(need.total)} GiB of free memory ({need.text()})",
            found=f"{gib(card.free)} GiB of {gib(card.total)}",
            todo="close what uses the card, or take a smaller budget or an engine of a smaller context",
        )


def load_tensorrt() -> Any:
    """The module tensorrt_rtx. Raises UnavailableError when it does not load, as without the driver's libraries."""
    try:
        return importlib.import_module("tensorrt_rtx")
    except Exception as error:  # its own initialisation may raise anything
        raise UnavailableError(
            f"the package {PACKAGE}",
            expected="it to load",
            found=f"{type(error).__name__}: {error}",
            todo="install it again, and the driver that it needs",
        ) from error


def untested(engine: EngineEntry, remembered: Status | None = None) -> str:
    """A warning about an engine that no card has run yet; empty where one has, here (`remembered`) or elsewhere."""
    if engine.status.state == "verified" or remembered is not None:
        return ""
    return f"{engine.file} was built and has not been run on a card yet: `elastic-run BUNDLE --verify` does so"
