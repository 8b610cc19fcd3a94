"""What a consumer of a bundle needs and nothing more: no torch, no exporter.

open(bundle, Request(...))  a session of the budget that fits     opening.py, session_request.py
generate(session, ...)      tokens as they are drawn              generation.py, sampling.py
Tokenizer(path)             text and ids                          text/tokenizer.py
Bundle.open(path)           manifest.json read and checked        bundle.py, format/manifest.py
bundle.choose(...)          the largest budget that fits          fit/choose.py, fit/vram.py
iter_weights(recipe, ...)   a sub-model's weights from the files  format/weights.py, format/slicing.py
load_targets()              the GPU classes                       fit/targets.py

A name is imported when it is first asked for: who wants the errors alone, as the process that builds an engine does,
need not wait for numpy. No module here has the name of one of these: importing it would put itself in its place.
"""

from importlib import import_module
from typing import TYPE_CHECKING

#: Of both distributions, elastic-runtime and elastic-export; their pyproject.toml read it here.
__version__ = "0.1.0"

if TYPE_CHECKING:
    from elastic_runtime.bundle import Bundle
    from elastic_runtime.errors import BuildError, ElasticError, InputError, UnavailableError
    from elastic_runtime.fit.targets import load_targets, select_targets
    from elastic_runtime.format.manifest_reader import DamageError
    from elastic_runtime.format.weights import WeightRecipe, iter_weights, load_weight
    from elastic_runtime.generation import Piece, Settings, generate
    from elastic_runtime.opening import LostError, Opener, open  # noqa: A004
    from elastic_runtime.sampling import Sampling
    from elastic_runtime.session import Session
    from elastic_runtime.session_request import Request
    from elastic_runtime.snapshot import Snapshot
    from elastic_runtime.text.tokenizer import Tokenizer

__all__ = [
    "BuildError",
    "Bundle",
    "DamageError",
    "ElasticError",
    "InputError",
    "LostError",
    "Opener",
    "Piece",
    "Request",
    "Sampling",
    "Session",
    "Settings",
    "Snapshot",
    "Tokenizer",
    "UnavailableError",
    "WeightRecipe",
    "generate",
    "iter_weights",
    "load_targets",
    "load_weight",
    "open",
    "select_targets",
]

if not TYPE_CHECKING:  # a type checker that sees it takes any name for one of ours
    _MODULES = {
        "BuildError": "errors",
        "Bundle": "bundle",
        "DamageError": "format.manifest_reader",
        "ElasticError": "errors",
        "InputError": "errors",
        "LostError": "opening",
        "Opener": "opening",
        "Piece": "generation",
        "Request": "session_request",
        "Sampling": "sampling",
        "Session": "session",
        "Settings": "generation",
        "Snapshot": "snapshot",
        "Tokenizer": "text.tokenizer",
        "UnavailableError": "errors",
        "WeightRecipe": "format.weights",
        "generate": "generation",
        "iter_weights": "format.weights",
        "load_targets": "fit.targets",
        "load_weight": "format.weights",
        "open": "opening",
        "select_targets": "fit.targets",
    }

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
