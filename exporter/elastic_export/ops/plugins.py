"""Which ops become plugins in each ops mode, and what an engine needs beside it to run."""

from __future__ import annotations

from collections.abc import Mapping

from elastic_export.ops.all_ops import SHIPPED
from elastic_export.products import Product
from elastic_runtime.format.interface import OpsMode
from elastic_runtime.format.manifest import CarriedLibrary, Plugin

LIBRARY = "libelastic_plugins.so"


def plugins_of(asked: OpsMode, counts: Mapping[str, int]) -> dict[str, int]:
    """Which of a sub-model's ops become plugins, and how many nodes of each there are."""
    return {name: count for name, count in counts.items() if asked == "plugin" and SHIPPED[name].plugin}


def mode_of(plugins: Mapping[str, int]) -> OpsMode:
    """The ops mode of one sub-model: without a layer that a plugin could serve it is native, and needs no library."""
    return "plugin" if plugins else "native"


def creators_of(plugins: Mapping[str, int]) -> dict[str, str]:
    """`module:factory` of the creators that declare those plugins to a build, by op."""
    entries = {name: SHIPPED[name].plugin for name in plugins}
    return {name: entry for name, entry in entries.items() if entry is not None}


def plugin_of(ops: OpsMode, product: Product, version: str, carried: CarriedLibrary | None = None) -> Plugin | None:
    """The library that an engine of that mode needs, the one it carries if it does, and the TensorRT that loads it."""
    if ops == "native":
        return None
    major, minor = version.split(".")[:2]
    return Plugin(LIBRARY, f"{product.abi}-{major}.{minor}", carried)
