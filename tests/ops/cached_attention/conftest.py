"""Fixtures that other folders use too."""

from __future__ import annotations

from emitted_model import one_thread, session

__all__ = ["one_thread", "session"]
