"""Weights as they arrive on a device: whole, in parts, each where it is bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.device import ALIGNMENT
from elastic_runtime.format.weights import StoredSlice, WeightInput, WeightRecipe, iter_weights
from elastic_runtime.tensorrt.device_weights import upload_weights
from sum_engine import MemoryDevice


def test_weights_arrive_as_slicing_them_gives(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    budget = bundle.budget("small")
    assert budget.weights
    recipe, folder, device = bundle.recipe(budget), (demo_bundle / budget.weights).parent, MemoryDevice()
    files: dict[Any, Any] = {}
    arena = upload_weights(device, recipe, folder, files=files)
    assert len(files) == 2
    assert device.finished
    for name, array in iter_weights(recipe, folder):
        assert arena.addresses[name] % ALIGNMENT == 0
        found = device.view(arena.addresses[name], array.nbytes)
        assert found.tobytes() == array.tobytes(), name
        assert array.dtype in (np.float32, ml_dtypes.bfloat16)
    assert arena.nbytes < 1.02 * recipe.nbytes + ALIGNMENT * len(recipe.inputs)
    arena.free()
    assert not device.blocks


@pytest.mark.parametrize("axis", [0, 1])
def test_the_parts_of_a_weight_arrive_behind_each_other(axis: int, tmp_path: Path) -> None:
    np.arange(64, dtype=np.float32).tofile(tmp_path / "a.bin")
    np.arange(100, 164, dtype=np.float32).tofile(tmp_path / "b.bin")
    parts = tuple(
        StoredSlice(file, 0, "fp32", (8, 8), (3, 3), (((0, 2), (5, 1)), ((1, 3),))) for file in ("a.bin", "b.bin")
    )
    recipe, device = WeightRecipe((WeightInput("w", parts, axis),)), MemoryDevice()
    arena = upload_weights(device, recipe, tmp_path)
    [(name, wanted)] = iter_weights(recipe, tmp_path)
    assert wanted.shape == ((6, 3) if axis == 0 else (3, 6))
    assert device.view(arena.addresses[name], wanted.nbytes).tobytes() == wanted.tobytes()
