"""The recording stand-in for TensorRT-RTX's bindings (stand_in/tensorrt_rtx), loaded beside the package itself."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

from elastic_runtime.bundle import Bundle
from elastic_runtime.format.manifest import BudgetEntry, EngineEntry

FOLDER = Path(__file__).parent / "stand_in"  # on PYTHONPATH the stand-in is the package


@functools.cache
def load_stand_in() -> Any:
    """The module, under a name of its own: the package may be installed as well."""
    folder = FOLDER / "tensorrt_rtx"
    spec = importlib.util.spec_from_file_location(
        "tensorrt_rtx_stand_in", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def tensors_of(bundle: Bundle, budget: BudgetEntry, engine: EngineEntry) -> list[Any]:
    """The inputs and outputs that an engine of a bundle has."""
    tensor, sizes = load_stand_in().Tensor, {"B": -1, "T": -1, "S": engine.max_context}
    aliased = {port.name: port.input for port in engine.outputs if port.alias == "must"}
    ports = [
        tensor(
            port.name,
            port in engine.inputs,
            tuple(sizes[dim] if isinstance(dim, str) else dim for dim in port.shape),
            port.dtype,
            aliased=aliased.get(port.name),
        )
        for port in (*engine.inputs, *engine.outputs)
    ]
    return ports + [tensor(item.name, True, item.shape, item.dtype) for item in bundle.recipe(budget).inputs]
