"""In which modes engines are built, and which plugin library goes into each: what `--ops` and `--plugins` come to here.

`auto` asks the machine: a library that serves a target travels in its engine, which then needs nothing beside it. Where
there is none a plugin engine still builds, from the contract, and runs where somebody has the library; a native one is
built beside it, which needs none, for the contexts that native attention takes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elastic_export.checkpoint.demo import cache_folder
from elastic_export.layers.architecture import Architecture
from elastic_export.ops.plugins import misfits, plugin_ops
from elastic_export.plan.limits import largest_context
from elastic_export.products import Product
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.fit.targets import Target
from elastic_runtime.format.interface import OpsMode, Precision
from elastic_runtime.format.manifest import CarriedLibrary
from elastic_runtime.format.plugin_libraries import (
    NAME,
    PluginLibraries,
    installed_libraries,
    library_ops,
    read_libraries,
)

OpsWish = Literal["auto", "plugin", "native", "plugin,native"]
OPS_WISHES: tuple[OpsWish, ...] = ("auto", "plugin", "native", "plugin,native")
_ALL = "; a native one beside each needs none"
_ANOTHER = "build it again from this version's plugins/: elastic-export plugins build"
_GET_ONE = "Install elastic-plugins, build it with `elastic-export plugins build`, or name a folder with --plugins"


@dataclass(frozen=True)
class Library:
    """A plugin library to put into engines: its file, and what the manifest says of it."""

    path: Path
    entry: CarriedLibrary


@dataclass(frozen=True)
class OpsPlan:
    """The modes to build, in order, and the library of each set of compute capabilities (`12.0`) that has one.

    `note` is what a user should know of it, empty where all is as it is best. `native_contexts` are those of native
    engines where they are fewer than were asked for (None: all of them).
    """

    modes: tuple[OpsMode, ...]
    libraries: Mapping[tuple[str, ...], Library]
    note: str = ""
    native_contexts: frozenset[int] | None = None

    def builds(self, mode: OpsMode, context: int) -> bool:
        """Whether an engine of that mode is built for that context."""
        return mode != "native" or self.native_contexts is None or context in self.native_contexts


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
    precision: Precision,
    capabilities: Sequence[tuple[str, ...]],
    contexts: Sequence[int],
) -> OpsPlan:
    """What to build. `auto` leaves out the native engine beside a plugin engine where its attention takes no such
    context; modes that are named are built for every context, or refused (`check_limits`).

    Args:
        wish: of `--ops`.
        named: the folder of `--plugins`.
        product: the TensorRT product.
        models: the sub-models' architectures.
        precision: of the export.
        capabilities: the compute capabilities (`12.0`) that engines are for, a tuple an engine.
        contexts: the contexts that engines are for.

    Raises:
        InputError: the named folder holds no libraries, or none for an engine, or one that lacks an op; `--plugins`
            with native engines alone.
        BuildError: a library is not what its description says.
    """
    if wish == "native" and named is not None:
        todo = "leave one of them out"
        raise InputError("--plugins", expected="engines with plugins", found="--ops native", todo=todo)
    if wish == "native":
        return OpsPlan(("native",), {})
    if wish == "auto" and (why := _no_plugins(product, models, precision)) is not None:
        return OpsPlan(("native",), {}, why)
    found = find_libraries(named)
    libraries = _choose(found, capabilities, _wanted(models, precision), named)
    missing = [names for names in capabilities if names not in libraries]
    if missing and named is not None:
        raise InputError(
            str(named),
            expected=f"a plugin library for compute capability {', '.join(missing[0])}",
            found="none",
            todo="build it with that architecture, or leave the target out",
        )
    without = "" if not missing else _without(missing, len(capabilities), found)
    if wish == "plugin,native":
        return OpsPlan(("plugin", "native"), libraries, _note(without, _ALL))
    if wish == "plugin" or not missing:
        return OpsPlan(("plugin",), libraries, _note(without))
    return _beside(libraries, without, contexts, _native_context(models, precision, product))


def _beside(
    libraries: Mapping[tuple[str, ...], Library], without: str, contexts: Sequence[int], most: int | None
) -> OpsPlan:
    """Plugin engines, and native ones for the contexts of up to `most` tokens."""
    short = frozenset(context for context in contexts if most is None or context <= most)
    if len(short) == len(contexts):
        return OpsPlan(("plugin", "native"), libraries, _note(without, _ALL))
    if not short:
        beside = f"; none of native ops beside them, whose attention takes up to {most} tokens"
        return OpsPlan(("plugin",), libraries, _note(without, beside))
    beside = f"; a native one beside each of up to {most} tokens, which is all that native attention takes, needs none"
    return OpsPlan(("plugin", "native"), libraries, _note(without, beside), short)


def _native_context(models: Sequence[Architecture], precision: Precision, product: Product) -> int | None:
    """The largest context that native engines of all the models take; None where nothing limits it."""
    limits = (largest_context(model, precision, "native", product) for model in models)
    return min((most for most in limits if most is not None), default=None)


def takes_plugins(model: Architecture, precision: Precision) -> bool:
    """Whether a plugin could serve a layer of the model; else its engine is native and needs no library."""
    return any(plugin_ops(model, precision)) or any(not misfit.op.inlines for misfit in misfits(model, precision))


def _no_plugins(product: Product, models: Sequence[Architecture], precision: Precision) -> str | None:
    """What to say where no engine can have plugins, nothing where no layer wants one; None where they can."""
    if not any(takes_plugins(model, precision) for model in models):
        return ""
    if not product.plugins:
        return f"native engines alone: {product.called} puts no plugin in place of a function body"
    for model in models:
        for misfit in misfits(model, precision):
            if not misfit.op.inlines:
                return f"native engines alone: the plugin takes {misfit.expected}, the model has {misfit.found}"
    return None


def _wanted(models: Sequence[Architecture], precision: Precision) -> dict[str, str]:
    """The ops that become plugins, and their versions."""
    ops = (op.contract for model in models for op in plugin_ops(model, precision))
    return {contract.name: str(contract.version) for contract in ops}


def _choose(
    found: PluginLibraries | None,
    capabilities: Sequence[tuple[str, ...]],
    wanted: Mapping[str, str],
    named: Path | None,
) -> dict[tuple[str, ...], Library]:
    """The library of each set of compute capabilities, where there is one with the wanted ops. One of an older version
    serves none where nobody has named it.
    """
    chosen = dict[tuple[str, ...], Library]()
    for names in capabilities if found is not None else ():
        assert found is not None
        if (library := found.smallest(names)) is None:
            continue
        path = found.checked(library)
        ops = library_ops(path)
        if ops is None or wanted.items() <= ops.items():
            entry = CarriedLibrary(library.file, library.size, library.sha256, found.abi, library.architectures)
            chosen[names] = Library(path, entry)
        elif named is not None:
            raise InputError(str(path), expected=_versions(wanted), found=_versions(ops), todo=_ANOTHER)
    return chosen


def _versions(ops: Mapping[str, str]) -> str:
    return "plugins of " + (", ".join(f"{name} {version}" for name, version in sorted(ops.items())) or "no op")


def _without(missing: Sequence[tuple[str, ...]], engines: int, found: PluginLibraries | None) -> str:
    """What there is none of."""
    older = found is not None and any(found.smallest(names) is not None for names in missing)
    which = "" if len(missing) == engines else f" for compute capability {', '.join(missing[0])}"
    return f"no plugin library{' of this version' if older else ''}{which} here"


def _note(without: str, beside: str = "") -> str:
    return f"{without}: plugin engines run only where elastic-plugins is{beside}. {_GET_ONE}" if without else ""


def capabilities_of(targets: Iterable[Target], precision: str) -> list[tuple[str, ...]]:
    """The different sets of compute capabilities of targets, in order."""
    return list(dict.fromkeys(tuple(target.capabilities(precision)) for target in targets))
