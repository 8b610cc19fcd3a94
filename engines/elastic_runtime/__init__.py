"""What a consumer of a bundle needs and nothing more: no torch, no exporter.

Bundle.open(path)           manifest.json read and checked        bundle.py, manifest.py
bundle.choose(...)          the largest budget that fits          choose.py, fit.py
iter_weights(recipe, ...)   a sub-model's weights from the files  weights.py, slicing.py
read_golden(path)           what `verify` replays                 golden.py, sketch.py
load_targets()              the GPU classes                       targets.py
"""

from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, ElasticError, InputError
from elastic_runtime.targets import load_targets, select_targets
from elastic_runtime.weights import WeightRecipe, iter_weights, load_weight

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
