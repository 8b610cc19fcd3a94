"""What a bring-up tries, a module a stage: the body of its process, which returns what it found, as JSON takes it.

Numbers are seconds and bytes. Arrays, too large for JSON, go to a file `.npz` in the folder of the report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.results import Found
from elastic_runtime.bringup.stages import (
    calls,
    card,
    context,
    device,
    engine,
    golden,
    kernels,
    life,
    machine,
    ort,
    sanitizer,
    speed,
)


@dataclass(frozen=True)
class Stage:
    """What it runs, and how many seconds it may take."""

    body: Callable[[Place], Found]
    seconds: float


STAGES = {
    "machine": Stage(machine.run, 60),
    "card": Stage(card.run, 30),
    "device": Stage(device.run, 60),
    "engine": Stage(engine.run, 60),
    "context": Stage(context.run, 240),
    "context-again": Stage(context.run, 120),
    "golden": Stage(golden.run, 180),
    "speed": Stage(speed.run, 180),
    "life": Stage(life.run, 120),
    "ort": Stage(ort.run, 180),
    "sanitizer": Stage(sanitizer.run, 240),
    "calls": Stage(calls.run, 240),  # within the sanitizer
    "kernels": Stage(kernels.run, 600),
}
