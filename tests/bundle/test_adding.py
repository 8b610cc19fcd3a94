"""What `--add` brings of the older bundle into the new one has the bytes of its manifest, or nothing is published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from elastic_runtime.errors import BuildError


def test_a_damaged_kept_file_is_named(tmp_path: Path, export: Callable) -> None:
    export(tmp_path / "out", {"big": [("rtx5080", 1024)]})
    engine = tmp_path / "out/big/rtx5080.engine"
    engine.write_bytes(b"X" + engine.read_bytes()[1:])
    with pytest.raises(BuildError, match=r"rtx5080\.engine: expected the file of the manifest, found a damaged"):
        export(tmp_path / "out", {"small": []}, add=True)


def test_a_missing_kept_file_is_named(tmp_path: Path, export: Callable) -> None:
    export(tmp_path / "out", {"big": [("rtx5080", 1024)]})
    (tmp_path / "out/big/rtx5080.engine").unlink()
    with pytest.raises(
        BuildError, match=r"rtx5080\.engine: expected the file of the manifest, found none\. Export without"
    ):
        export(tmp_path / "out", {"small": []}, add=True)
