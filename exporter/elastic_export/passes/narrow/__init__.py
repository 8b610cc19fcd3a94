"""Narrowing: a liveness analysis and the cut that follows from it."""

from elastic_export.passes.narrow.analysis import analyse, known_zeros
from elastic_export.passes.narrow.narrow import Narrow

__all__ = ["Narrow", "analyse", "known_zeros"]
