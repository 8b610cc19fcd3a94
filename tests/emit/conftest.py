"""Shared by the tests of the emit stage: one small parent, compiled for one budget, and a runner for files."""

from __future__ import annotations

from emitted_model import compiled, emitted, one_thread, session

__all__ = ["compiled", "emitted", "one_thread", "session"]  # fixtures
