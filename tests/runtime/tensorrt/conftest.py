"""What the tests of engines share: the recording stand-in of the bindings, watched over."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from rtx_stand_in import load_stand_in


@pytest.fixture
def trt() -> Iterator[Any]:
    """The module; no rule of its interface may have been broken, and nothing of it may outlive the test."""
    module = load_stand_in()
    gc.collect()
    module.WORLD.reset()
    yield module
    gc.collect()
    assert module.WORLD.broken == []
    assert {name: count for name, count in module.WORLD.living.items() if count} == {}
