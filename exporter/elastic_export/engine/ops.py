"""Which ops become plugins in each ops mode, and what an engine needs beside it to run."""

from __future__ import annotations

from elastic_runtime.interface import OpsMode
from elastic_runtime.manifest import Plugin

#: `module:factory` of the creators that declare our plugins to a build, by op name.
CREATORS: dict[str, str] = {"Mamba2Mixer": "elastic_export.engine.mixer_creator:create"}
LIBRARY = "libelastic_plugins.so"


def ops_of(asked: OpsMode, mixers: int) -> OpsMode:
    """The ops mode of one sub-model: without a layer that a plugin could serve it is native, and needs no library."""
    return asked if mixers else "native"


def creators_of(ops: OpsMode) -> dict[str, str]:
    """The creators of a build: none where function bodies are compiled natively."""
    return CREATORS if ops == "plugin" else {}


def plugin_of(ops: OpsMode, version: str) -> Plugin | None:
    """The library that an engine of that mode needs, and its ABI: that of the TensorRT-RTX minor version."""
    if ops == "native":
        return None
    major, minor = version.split(".")[:2]
    return Plugin(LIBRARY, f"rtx-{major}.{minor}")
