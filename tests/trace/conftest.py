"""Fixtures that other folders use too."""

from __future__ import annotations

from traced_parent import arch, traced

__all__ = ["arch", "traced"]
