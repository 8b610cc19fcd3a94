"""What a consumer of a bundle needs and nothing more: no torch, no exporter.

Bundle.open(path)           manifest.json read and checked        bundle.py, format/manifest.py
bundle.choose(...)          the largest budget that fits          fit/choose.py, fit/vram.py
iter_weights(recipe, ...)   a sub-model's weights from the files  format/weights.py, format/slicing.py
read_golden(path)           what `verify` replays                 format/golden.py, format/sketch.py
load_targets()              the GPU classes                       fit/targets.py

A name is imported when it is first asked for: who wants the errors alone, as the process that builds an engine does,
need not wait for numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

#: Of both distributions, elastic-runtime and elastic-export; their pyproject.toml read it here.
__version__ = "0.1.0"

if TYPE_CHECKING:
    from elastic_runtime.bundle import Bundle
    from elastic_runtime.errors import BuildError, ElasticError, InputError
    from elastic_runtime.fit.targets import load_targets, select_targets
    from elastic_runtime.format.weights import WeightRecipe, iter_weights, load_weight

__all__ = [
    "BuildError",
    "Bundle",
    "ElasticError",
    "InputError",
    "WeightRecipe",
    "iter_weights",
    "load_targets",
    "load_weight",
    "select_targets",
]

if not TYPE_CHECKING:  # a type checker that sees it takes any name for one of ours
    _MODULES = {
        "BuildError": "errors",
        "Bundle": "bundle",
        "ElasticError": "errors",
        "InputError": "errors",
        "WeightRecipe": "format.weights",
        "iter_weights": "format.weights",
        "load_targets": "fit.targets",
        "load_weight": "format.weights",
        "select_targets": "fit.targets",
    }

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
