"""Narrowing: a liveness analysis and the cut that follows from it."""

from elastic_export.passes.narrow.analysis import known_zeros
from elastic_export.passes.narrow.narrow import Narrow

__all__ = ["Narrow", "known_zeros"]
