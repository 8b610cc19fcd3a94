"""Whether an engine can run here, found out before anything loads."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from typing import Any

from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import BuildError, UnavailableError, is_interrupted
from elastic_runtime.fit.vram import gib, vram_needed
from elastic_runtime.format.manifest import BudgetEntry, EngineEntry, Status

PACKAGE = "tensorrt-rtx"
#: The first driver of each CUDA that the package is made for (NVIDIA's CUDA release notes, table 3).
_DRIVERS = {13: "580", 12: "525"}
_ROOMY = 0.9  # of what is free: programs come and go
_ANEW = "install it again, and the driver that it needs"
#: What `Runtime.get_engine_validity` finds, the first first: what is there, and what to do.
_FAULTS = {
    "OLD_CUDA_DRIVER": ("a driver that is too old", "update NVIDIA's driver"),
    "OLD_CUDA_RUNTIME": ("a CUDA runtime that is too old", f"pip install --upgrade {PACKAGE}"),
    "VERSION_MISMATCH": ("another TensorRT-RTX than the one that built it", f"install the {PACKAGE} of the manifest"),
    "UNSUPPORTED_CC": ("a card whose class it was not built for", "export the bundle for it with another --target"),
    "INSUFFICIENT_GPU_MEMORY": ("too little GPU memory", "close what uses the card, or take a smaller budget"),
    "CUDA_ERROR": ("an error of CUDA", "see whether nvidia-smi shows the card, and install the driver again"),
}


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


def check_driver(engine: EngineEntry, found: tuple[int, int] | None, made_for: int | None) -> None:
    """Raise UnavailableError where the driver runs an older CUDA than the package is made for.

    TensorRT would only say that it cannot read the engine. `made_for`: `package_cuda`.
    """
    if found is None or made_for is None or found[0] >= made_for:
        return
    first = _DRIVERS.get(made_for)
    raise UnavailableError(
        engine.file,
        expected=f"a driver that runs CUDA {made_for}" + (f" ({first} or newer)" if first else ""),
        found=f"one for CUDA {found[0]}.{found[1]}",
        todo="update NVIDIA's driver",
    )


def package_cuda() -> int | None:
    """The CUDA that the installed package is made for: tensorrt-rtx brings its libraries as tensorrt-rtx-cu13."""
    for cuda in _DRIVERS:
        try:
            importlib.metadata.version(f"{PACKAGE}-cu{cuda}")
        except importlib.metadata.PackageNotFoundError:
            continue
        return cuda
    return None


def check_validity(trt: Any, runtime: Any, file: str, data: bytes) -> str:
    """Ask TensorRT whether it can run the engine here, by its header, before it is read.

    Returns:
        A warning where it can, but not as well as it might; else nothing.

    Raises:
        UnavailableError: it cannot here; the engine is sound.
        BuildError: these are not the bytes of an engine.
    """
    try:
        validity, faults = runtime.get_engine_validity(data)
    except RuntimeError as error:
        raise UnavailableError(file, expected="TensorRT-RTX to judge it", found=str(error), todo=_ANEW) from error
    reasons = trt.EngineInvalidityDiagnostics.__members__
    if faults & reasons["MALFORMED_ENGINE"].value:
        todo = "copy the bundle again, or export it again"
        raise BuildError(file, expected="an engine of TensorRT-RTX", found="something else", todo=todo)
    if validity == trt.EngineValidity.INVALID:
        named = [text for name, text in _FAULTS.items() if faults & reasons[name].value]
        found, todo = named[0] if named else ("a refusal without a reason", _ANEW)
        raise UnavailableError(file, expected="an engine that TensorRT-RTX can run here", found=found, todo=todo)
    if validity == trt.EngineValidity.SUBOPTIMAL:
        return f"warning: {file} was not built for this card and may be slow here: export with its --target"
    return ""


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


def crowded(budget: BudgetEntry, engine: EngineEntry, card: Card, *, batch: int) -> str:
    """A warning where Windows may take main memory for the card's; empty elsewhere, and where there is room.

    Its drivers refuse no program that asks for more than is free: they move memory out, and a decode step that reads
    weights over PCIe takes many times as long.
    """
    need = vram_needed(budget.size(engine), context=engine.max_context, batch=batch).total
    if sys.platform != "win32" or need <= _ROOMY * card.free:
        return ""
    return (
        f"warning: budget {budget.name!r} takes {gib(need)} of the {gib(card.free)} GiB that are free on {card.name}; "
        "where other programs take some of it meanwhile, Windows moves GPU memory to main memory without a word, and "
        "decode becomes many times slower: close them, or have the driver refuse it (NVIDIA Control Panel, CUDA - "
        "Sysmem Fallback Policy)"
    )


def load_tensorrt() -> Any:
    """The module tensorrt_rtx. Raises UnavailableError when it does not load, as without the driver's libraries."""
    try:
        return importlib.import_module("tensorrt_rtx")
    except Exception as error:  # its own initialisation may raise anything
        if is_interrupted(error):  # which is no reason to run elsewhere
            raise KeyboardInterrupt from error
        raise UnavailableError(
            f"the package {PACKAGE}",
            expected="it to load",
            found=f"{type(error).__name__}: {error}",
            todo=_ANEW,
        ) from error


def untested(engine: EngineEntry, remembered: Status | None = None) -> str:
    """A warning about an engine that no card has run yet; empty where one has, here (`remembered`) or elsewhere."""
    if engine.status.state == "verified" or remembered is not None:
        return ""
    return f"{engine.file} was built and has not been run on a card yet: `elastic-run BUNDLE --verify` does so"
