"""Shared by the tests of the graph stage: one small architecture of all kinds, traced once."""

from __future__ import annotations

from graph_text import evaluate, parse
from traced_parent import arch, traced

__all__ = ["arch", "evaluate", "parse", "traced"]  # fixtures
