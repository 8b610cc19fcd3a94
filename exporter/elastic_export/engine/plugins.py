"""Declaring plugin ops to TensorRT before the model is parsed.

A creator says name, version, fields, shapes, dtypes and aliases of an op: all that a build ahead of time needs. With
`ENABLE_PLUGIN_OVERRIDE` a node whose op is a model-local function becomes the plugin registered under that name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from elastic_runtime.errors import BuildError, InputError


def register_plugins(trt: Any, creators: Mapping[str, str]) -> tuple[Any, ...]:
    """Register the creator of every op; return them, for they must outlive the build.

    Args:
        trt: the TensorRT module.
        creators: `module:factory` by op name; the factory takes the TensorRT module and returns an IPluginCreatorV3One.

    Raises:
        InputError: a creator that cannot be imported.
        BuildError: TensorRT refused one.
    """
    registry = trt.get_plugin_registry()
    made = []
    for op, entry in creators.items():
        creator = _factory(op, entry)(trt)
        if not registry.register_creator(creator, ""):
            raise BuildError(
                f"plugin {op}",
                expected="to be registered",
                found="a refusal by the registry",
                todo="use --ops native, and report this: the name is taken, or the declaration is faulty",
            )
        made.append(creator)
    return tuple(made)


def check_creators(plugin_ops: Mapping[str, int], creators: Mapping[str, str]) -> None:
    """Refuse plugin ops nobody declares, before anything is built.

    Raises:
        InputError: naming the ops.
    """
    missing = sorted(set(plugin_ops) - set(creators))
    if missing:
        raise InputError(
            "--ops plugin",
            expected=f"a TensorRT plugin creator for {', '.join(missing)}",
            found="none" if not creators else f"creators for {', '.join(sorted(creators))}",
            todo="use --ops native",
        )


def _factory(op: str, entry: str) -> Any:
    module, _, name = entry.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"plugin {op}", expected=f"a creator at {entry}", found=str(error), todo="write it as module:factory"
        ) from error
