"""What this card can do at most: the denominators of every time, measured first and last."""

from __future__ import annotations

import subprocess

import torch

from device_check.place import Place
from device_check.timing import Clock, make_clock, statistics

#: Bytes of a copy, and the side of a matrix product; on a CPU, enough to run through.
SIZES = {"cuda": (1 << 30, 8192), "cpu": (1 << 20, 128)}


def run(place: Place) -> None:
    """Copy bandwidth (bytes read and written), a BF16 product by the vendor's library, clocks."""
    bytes_, side = SIZES[place.device]
    clock = make_clock(place.device)
    one = torch.randn(bytes_ // 4, device=place.device)
    two = torch.empty_like(one)
    copied = _median(clock, lambda: two.copy_(one))
    a, b = (torch.randn(side, side, device=place.device).to(torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    multiplied = _median(clock, lambda: torch.mm(a, b, out=out))
    place.emit(
        "ceiling",
        copy_gb_s=round(2 * bytes_ / copied / 1e6, 1),
        gemm_tflops=round(2 * side**3 / multiplied / 1e9, 1),
        clocks=_clocks() if place.device == "cuda" else "",
    )


def _median(clock: Clock, work: object) -> float:
    replay = clock.capture([work])  # type: ignore[list-item]
    clock.milliseconds(replay, 3)
    return statistics([clock.milliseconds(replay, 3) for _ in range(7)])["median"]


def _clocks() -> str:
    query = "name,driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
