"""Shared by the tests of the checkpoint stage: a forward pass written as the formulas are, a token at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from small_checkpoint import folder, naive_forward, parent, small

__all__ = ["folder", "naive_forward", "parent", "small"]  # fixtures


@pytest.fixture
def edit() -> Callable[..., None]:
    """`edit(path, key=value, …)`: change keys of a JSON file; `...` deletes one."""

    def change(path: Path, **changes: Any) -> None:
        document = json.loads(path.read_bytes())
        document.update(changes)
        path.write_text(json.dumps({key: value for key, value in document.items() if value is not ...}))

    return change
