"""Fixtures that other folders use too."""

from __future__ import annotations

from emitted_model import compiled, emitted, one_thread
from small_checkpoint import folder, naive_forward, parent, small

__all__ = ["compiled", "emitted", "folder", "naive_forward", "one_thread", "parent", "small"]
