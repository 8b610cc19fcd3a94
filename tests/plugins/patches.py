"""What the tests of broken kernels share: where a line is replaced, and which of them run every time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest

_EVERY = 6  # each compiles a kernel anew


def pattern(old: str) -> str:
    """Matches the text however it is laid out."""
    return r"\s+".join(re.escape(word) for word in old.split())


def every_sixth(names: Iterable[str]) -> list[Any]:
    """Parameters, of which all but every sixth are slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] if i % _EVERY else []) for i, name in enumerate(names)]


def the_first(names: Iterable[str], count: int) -> list[Any]:
    """Parameters, of which all but the first are slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] if i >= count else []) for i, name in enumerate(names)]
