"""In which modes engines are built, and which plugin library goes into each: what `--ops` and `--plugins` come to here.

`auto` asks the machine: a library that serves a target travels in its engine, which then needs nothing beside it. Where
there is none a plugin engine still builds, from the contract, and runs where somebody has the library; a native one is
built beside it, which needs none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elastic_export.checkpoint.demo import cache_folder
from elastic_export.layers.architecture import Architecture
from elastic_export.ops.all_ops import SHIPPED
from elastic_export.plan.limits import check_plugins
from elastic_export.products import Product
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.fit.targets import Target
from elastic_runtime.format.interface import OpsMode
from elastic_runtime.format.manifest import CarriedLibrary
from elastic_runtime.format.plugin_libraries import NAME, PluginLibraries, installed_libraries, read_libraries

OpsWish = Literal["auto", "plugin", "native", "plugin,native"]
OPS_WISHES: tuple[OpsWish, ...] = ("auto", "plugin", "native", "plugin,native")
_GET_ONE = "Install elastic-plugins, build it with `elastic-export plugins build`, or name a folder with --plugins"


@dataclass(frozen=True)
class Library:
    """A plugin library to put into engines: its file, and what the manifest says of it."""

    path: Path
    entry: CarriedLibrary


@dataclass(frozen=True)
class OpsPlan:
    """The modes to build, in order, and the library of each set of compute capabilities (`12.0`) that has one.

    `note` is what a user should know of it, empty where all is as it is best.
    """

    modes: tuple[OpsMode, ...]
    libraries: Mapping[tuple[str, ...], Library]
    note: str = ""


def built_folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Where `elastic-export plugins build` puts libraries; None where there is no home for it."""
    try:
        return cache_folder(environ) / "plugins"
    except BuildError:
        return None


def find_libraries(named: Path | None) -> PluginLibraries | None:
    """The libraries of the named folder, else those of the package elastic-plugins, else those built here before.

    Raises:
        InputError: the named folder holds none, or a description is damaged.
    """
    if named is not None:
        return read_libraries(named)
    if (installed := installed_libraries()) is not None:
        return installed
    folder = built_folder()
    return read_libraries(folder) if folder is not None and (folder / NAME).is_file() else None


def plan_ops(
    wish: OpsWish,
    named: Path | None,
    product: Product,
    models: Sequence[Architecture],
    capabilities: Sequence[tuple[str, ...]],
) -> OpsPlan:
    """What to build.

    Args:
        wish: of `--ops`.
        named: the folder of `--plugins`.
        product: the TensorRT product.
        models: the sub-models' architectures.
        capabilities: the compute capabilities (`12.0`) that engines are for, a tuple an engine.

    Raises:
        InputError: the named folder holds no libraries, or none for an engine; `--plugins` with native engines alone.
        BuildError: a library is not what its description says.
    """
    if wish == "native" and named is not None:
        todo = "leave one of them out"
        raise InputError("--plugins", expected="engines with plugins", found="--ops native", todo=todo)
    if wish == "native":
        return OpsPlan(("native",), {})
    if wish == "auto" and (why := _no_plugins(product, models)) is not None:
        return OpsPlan(("native",), {}, why)
    libraries = _choose(find_libraries(named), capabilities)
    missing = [names for names in capabilities if names not in libraries]
    if missing and named is not None:
        raise InputError(
            str(named),
            expected=f"a plugin library for compute capability {', '.join(missing[0])}",
            found="none",
            todo="build it with that architecture, or leave the target out",
        )
    both: tuple[OpsMode, ...] = ("plugin", "native")
    modes = both if wish == "plugin,native" or (wish == "auto" and missing) else ("plugin",)
    return OpsPlan(modes, libraries, _note(modes, missing, len(capabilities)))


def takes_plugins(model: Architecture) -> bool:
    """Whether a plugin could serve a layer of the model; else its engine is native and needs no library."""
    return any(op.plugin and op.count(model) for op in SHIPPED.values())


def _no_plugins(product: Product, models: Sequence[Architecture]) -> str | None:
    """What to say where no engine can have plugins, nothing where no layer wants one; None where they can."""
    if not any(takes_plugins(model) for model in models):
        return ""
    if not product.plugins:
        return f"native engines alone: {product.called} puts no plugin in place of a function body"
    try:
        for model in models:
            check_plugins(model)
    except InputError as error:
        return f"native engines alone: the plugin takes {error.expected}, the model has {error.found}"
    return None


def _choose(found: PluginLibraries | None, capabilities: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], Library]:
    chosen = dict[tuple[str, ...], Library]()
    if found is None:
        return chosen
    for names in capabilities:
        if (library := found.smallest(names)) is not None:
            entry = CarriedLibrary(library.file, library.size, library.sha256, found.abi, library.architectures)
            chosen[names] = Library(found.checked(library), entry)
    return chosen


def _note(modes: tuple[OpsMode, ...], missing: Sequence[tuple[str, ...]], engines: int) -> str:
    if not missing:
        return ""
    which = "" if len(missing) == engines else f" for compute capability {', '.join(missing[0])}"
    beside = "; a native one beside each needs none" if "native" in modes else ""
    return f"no plugin library{which} here: plugin engines run only where elastic-plugins is{beside}. {_GET_ONE}"


def capabilities_of(targets: Iterable[Target], precision: str) -> list[tuple[str, ...]]:
    """The different sets of compute capabilities of targets, in order."""
    return list(dict.fromkeys(tuple(target.capabilities(precision)) for target in targets))
