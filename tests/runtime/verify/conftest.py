"""Shared by the tests of a bundle's verification."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copy(demo_bundle: Path, tmp_path: Path) -> Path:
    """A copy whose files may be changed (the demo's are links to one another)."""
    return Path(shutil.copytree(demo_bundle, tmp_path / "copy"))
