"""What this card can do at most: the denominators of every time, measured first and last."""

from __future__ import annotations

import subprocess

import torch

from device_check.place import Place
from device_check.timing import Clock, Work, make_clock, statistics

#: Bytes of a copy, and the side of a matrix product; on a CPU, enough to run through.
SIZES = {"cuda": (1 << 30, 8192), "cpu": (1 << 20, 128)}


def run(place: Place) -> None:
    """Copy bandwidth (bytes read and written), the best of three ways; a BF16 product by the vendor; clocks."""
    bytes_, side = SIZES[place.device]
    clock = make_clock(place.device)
    one = torch.randn(bytes_ // 4, device=place.device)
    two = torch.empty_like(one)
    ways: dict[str, Work] = {
        "memcpy": lambda: two.copy_(one),  # as the stream has it: as a graph's node it is a fifth slower on an H100
        "memcpy node": clock.capture([lambda: two.copy_(one)]),
        "kernel": clock.capture([lambda: torch.neg(one, out=two)]),
    }
    copies = {way: round(2 * bytes_ / _median(clock, work) / 1e6, 1) for way, work in ways.items()}
    a, b = (torch.randn(side, side, device=place.device).to(torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    multiplied = _median(clock, clock.capture([lambda: torch.mm(a, b, out=out)]))
    place.emit(
        "ceiling",
        copy_gb_s=max(copies.values()),
        copies=copies,
        gemm_tflops=round(2 * side**3 / multiplied / 1e9, 1),
        clocks=_clocks() if place.device == "cuda" else "",
    )


def _median(clock: Clock, replay: Work) -> float:
    clock.milliseconds(replay, 3)
    return statistics([clock.milliseconds(replay, 5) for _ in range(15)])["median"]


def _clocks() -> str:
    query = "name,driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
