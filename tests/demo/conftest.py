"""The recipe's modules, which are scripts beside each other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def gradients() -> Iterator[None]:
    """Other tests switch them off for their process."""
    with torch.enable_grad():
        yield
