"""Stage `speed`: what it uploads is what a session would, checked against the engine first."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from counting_card import CARD, Device
from elastic_runtime.bringup import place
from elastic_runtime.bringup.stages import speed
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from rtx_stand_in import load_stand_in, tensors_of

FILE = "small/rtx5080.engine"


@pytest.fixture
def device(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A card that counts, and bindings whose engine is the demo's."""
    device, trt, bundle = Device(), load_stand_in(), Bundle.open(demo_bundle)
    trt.WORLD.reset()
    budget = bundle.budget("small")
    trt.WORLD.tensors = tensors_of(bundle, budget, budget.engines[0])
    patched: dict[str, Any] = {"CudaDevice": lambda: device, "card": lambda: CARD, "load_tensorrt": lambda: trt}
    for name, value in patched.items():
        monkeypatch.setattr(place, name, value)
    return device


def test_the_upload_is_that_of_all_weights(device: Device, demo_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    found = speed._upload(place.Place(demo_bundle, tmp_path, engine=FILE))
    assert found is not None
    assert device.uploaded == bundle.recipe(bundle.budget("small")).nbytes
    assert found["bytes"] >= device.uploaded
    assert (device.held, device.closed) == ({}, True)


def test_weights_of_another_dtype_are_not_uploaded(device: Device, demo_bundle: Path, tmp_path: Path) -> None:
    """As wide as those that the engine takes: a figure of them would be of something that never runs."""
    tensors = load_stand_in().WORLD.tensors
    number = next(n for n, tensor in enumerate(tensors) if tensor.name == "lm_head.weight")
    tensors[number] = replace(tensors[number], dtype="fp16")
    with pytest.raises(InputError, match=r"weight lm_head\.weight: expected the shape and dtype that") as caught:
        speed._upload(place.Place(demo_bundle, tmp_path, engine=FILE))
    assert (device.uploaded, device.held, device.closed) == (0, {}, True)
    del caught
    gc.collect()
    assert not any(load_stand_in().WORLD.living.values())
