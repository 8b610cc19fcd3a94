"""Whether an engine can run here, found out before anything loads."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Sequence
from pathlib import Path

from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.fit import gib, vram_needed
from elastic_runtime.jsonfile import parse_json
from elastic_runtime.manifest import BudgetEntry, EngineEntry, Plugin
from elastic_runtime.memory import Card

PACKAGE = "tensorrt-rtx"
_MARKER = re.compile(rb"elastic-plugins-abi/1 (\{[^\0]{2,4096}\})\0")


class UnavailableError(BuildError):
    """The engine cannot run on this machine; nothing is wrong with it."""


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
        found = f"one of {engine.flavour}"
        raise UnavailableError(engine.file, expected=f"an engine of {PACKAGE}, which this runtime drives", found=found)
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


def find_plugin(plugin: Plugin | None, folders: Sequence[Path]) -> Path | None:
    """The plugin library of an engine, its ABI read from the file; None for an engine without plugins.

    Args:
        plugin: of the engine's entry.
        folders: where to look, in order.

    Raises:
        UnavailableError: it is in none of them, or made for another TensorRT.
    """
    if plugin is None:
        return None
    path = next((folder / plugin.library for folder in folders if (folder / plugin.library).is_file()), None)
    if path is None:
        where = ", ".join(map(str, folders))
        todo = "build plugins/ with CMake against the SDK of that version, and name its folder with --plugins"
        raise UnavailableError(plugin.library, expected=f"the library in {where}", found="no such file", todo=todo)
    found = library_abi(path)
    if found.removeprefix("tensorrt-") != plugin.abi.removeprefix("tensorrt-"):
        todo = "build plugins/ against the SDK headers of that version"
        raise UnavailableError(str(path), expected=f"a library for {plugin.abi}", found=f"one for {found}", todo=todo)
    return path


def library_abi(path: Path) -> str:
    """The TensorRT ABI that a plugin library was made for, read from its bytes and not by loading it.

    Raises:
        InputError: not a plugin library of ours.
    """
    found = _MARKER.search(path.read_bytes())
    if found is None:
        raise InputError(str(path), expected="a library of elastic plugins", found="one that does not say its versions")
    abi = parse_json(found[1], f"{path}: versions").get("tensorrt")
    return abi if isinstance(abi, str) else "none"


def check_memory(budget: BudgetEntry, engine: EngineEntry, card: Card, *, batch: int) -> None:
    """Raise UnavailableError when the card has not enough free memory now."""
    need = vram_needed(budget.size(engine), context=engine.max_context, batch=batch)
    if need.total > card.free:
        raise UnavailableError(
            f"budget {budget.name!r} on {card.name}",
            expected=f"{gib(need.total)} GiB of free memory ({need.text()})",
            found=f"{gib(card.free)} GiB of {gib(card.total)}",
            todo="close what uses the card, or take a smaller budget or an engine of a smaller context",
        )


def untested(engine: EngineEntry) -> str:
    """A warning about an engine that no card has run yet; empty where one has."""
    if engine.status.state == "verified":
        return ""
    return f"{engine.file} was built and has not been run on a card yet: `elastic-run BUNDLE --verify` does so"


def cache_folder(given: Path | None) -> Path:
    """Where compiled kernels are kept: as given, else ELASTIC_CACHE, else XDG_CACHE_HOME or ~/.cache."""
    if given is not None:
        return given
    if os.environ.get("ELASTIC_CACHE"):
        return Path(os.environ["ELASTIC_CACHE"]).expanduser() / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "elastic-runtime" / "kernels"
