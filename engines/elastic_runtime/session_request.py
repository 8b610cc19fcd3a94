"""What a session is asked to be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elastic_runtime.ort.open_onnx import WeightForm

BackendName = Literal["auto", "onnxruntime", "tensorrt-rtx"]
DeviceWish = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True)
class Request:
    """What to open. None leaves a choice: the memory that is free, the largest context that fits it.

    `device`: an engine is always the card's. onnxruntime takes the card on `gpu`, or fails; on `auto` it takes it where
    it can and a float32 twin fits, else the CPU.

    `plugin_folder` holds plugin libraries and `trust_engine` vouches for those that engines carry: both let code run
    that neither the installed elastic-plugins nor anybody else has checked.
    """

    budget: str = "auto"
    backend: BackendName = "auto"
    device: DeviceWish = "auto"
    vram: int | None = None
    context: int | None = None
    batch: int = 1
    weights: WeightForm = "auto"
    threads: int = 0
    plugin_folder: Path | None = None
    trust_engine: bool = False
    cache_folder: Path | None = None
