"""Stage `engine`: a file that is not the one that was written is named, and no builder's library sees it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from elastic_runtime.bringup import place
from elastic_runtime.bringup.stages import engine
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.format.manifest_reader import DamageError


def test_a_damaged_engine_is_named_before_tensorrt_has_it(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copytree(demo_bundle, tmp_path / "bundle", copy_function=shutil.copyfile))
    file = bundle / "small/rtx5080.engine"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    monkeypatch.setattr(place, "card", lambda: Card("RTX 5080", "12.0", 16 << 30, 15 << 30))
    monkeypatch.setattr(place, "load_tensorrt", lambda: pytest.fail("TensorRT was loaded"))
    with pytest.raises(
        DamageError, match=r"small/rtx5080\.engine: expected sha256 .*, found .*\. Copy the bundle again"
    ):
        engine.run(place.Place(bundle, tmp_path, budget="small", engine="small/rtx5080.engine"))
